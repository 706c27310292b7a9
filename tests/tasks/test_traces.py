"""Published solutions with verdicts: five formats, one record, and what is refused with its file and row."""

from __future__ import annotations

import copy
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import public_data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.errors import InputError
from glore_jax.records import Judged
from glore_jax.tasks import rows, traces

TRACE = {"id": "a", "question": "2 and 3?", "steps": ["2+3=6", "It is 6."], "first_error": 0, "answer_correct": False}
PROCESSBENCH = {
    "id": "math-7", "generator": "Qwen", "problem": "2 and 3?", "steps": ["2+3=5", "It is 6."],
    "final_answer_correct": False, "label": 1,
}  # fmt: skip
SHEPHERD = {
    "input": "2 and 3? Step 1: 2+3=5 ки\nStep 2: It is 6. The answer is: 6 ки",
    "label": "2 and 3? Step 1: 2+3=5 +\nStep 2: It is 6. The answer is: 6 -",
    "task": "GSM8K",
}
MISTAKE = {"input": "2 and 3 =", "steps": ["2+3=5", "So 5"], "answer": "5 ", "target": "5", "mistake_index": None}


def step(*ratings: int, chosen: int | None = 0, human: str = "", text: str = "step") -> dict[str, Any]:
    completions = [{"text": f"{text} {i}", "rating": rating, "flagged": False} for i, rating in enumerate(ratings)]
    own = {"text": human, "rating": None, "source": "human", "flagged": False} if human else None
    return {"completions": completions, "human_completion": own, "chosen_completion": chosen}


def prm800k(finish: str, steps: list[dict[str, Any]], written: list[str] | None = None) -> dict[str, Any]:
    question = {"problem": "2 and 3?", "ground_truth_answer": "5"}
    question |= {"pre_generated_steps": written, "pre_generated_answer": "6"} if written else {}
    return {"question": question, "label": {"steps": steps, "finish_reason": finish}}


def write(folder: Path, *found: Any, name: str = "file.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def read_one(folder: Path, row: Any) -> Judged:
    (judged,) = traces.read(write(folder, row))
    return judged


def test_own_format(tmp_path: Path):
    assert read_one(tmp_path, TRACE) == Judged("a", "2 and 3?", ("2+3=6", "It is 6."), 0, right=False)
    bare = read_one(tmp_path, {"id": 3, "question": "2 and 3?", "steps": ["It is 5."]})
    assert bare == Judged("3", "2 and 3?", ("It is 5.",))


def test_own_format_with_the_right_answer(tmp_path: Path):
    assert read_one(tmp_path, TRACE | {"answer": 5}).answer == "5"
    assert read_one(tmp_path, TRACE | {"gold": " 5 "}).answer == "5"
    assert read_one(tmp_path, TRACE | {"answer": "5", "gold": "6"}).answer == "5"


def test_own_format_of_several_sources(tmp_path: Path):
    others = [TRACE | {"source": name, "generator": "G"} for name in ("x", "y")]
    found = traces.read(write(tmp_path, *others))
    assert [(j.id, j.subset, j.generator) for j in found] == [("x/a", "x", "G"), ("y/a", "y", "G")]


def test_own_format_with_a_solution_in_place_of_steps(tmp_path: Path):
    row = {
        "id": "a",
        "question": "2 and 3?",
        "solution": "Add.\n\n2+3=<<2+3=5>>5. Then 5*2=<<5*2=10>>10\n",
        "steps": None,
    }
    assert read_one(tmp_path, row).steps == ("Add.", "2+3=<<2+3=5>>5.", "Then 5*2=<<5*2=10>>10")
    with pytest.raises(InputError, match=r"line 1: 'first_error' counts steps, and there are no 'steps'"):
        read_one(tmp_path, row | {"first_error": 0})


def test_processbench(tmp_path: Path):
    assert read_one(tmp_path, PROCESSBENCH) == Judged(
        "math-7", "2 and 3?", ("2+3=5", "It is 6."), 1, right=False, generator="Qwen", subset="math"
    )
    assert read_one(tmp_path, PROCESSBENCH | {"label": -1, "id": "omni-math-2"}).subset == "omni-math"


def test_math_shepherd(tmp_path: Path):
    assert read_one(tmp_path, SHEPHERD) == Judged(
        "line-1", "2 and 3?", ("Step 1: 2+3=5", "Step 2: It is 6. The answer is: 6"), 1, (1, 0), False, subset="GSM8K"
    )
    right = SHEPHERD | {"label": SHEPHERD["label"].removesuffix("-") + "+"}
    assert (read_one(tmp_path, right).first_false, read_one(tmp_path, right).right) == (-1, True)


def test_bigbench_mistake(tmp_path: Path):
    assert read_one(tmp_path, MISTAKE) == Judged("line-1", "2 and 3 =", ("2+3=5", "So 5"), -1, right=True, answer="5")
    wrong = read_one(tmp_path, MISTAKE | {"mistake_index": 1, "answer": None})
    assert (wrong.first_false, wrong.right) == (1, False)


def test_prm800k_phase_1_follows_what_was_chosen(tmp_path: Path):
    row = prm800k("solution", [step(1), step(-1, -1, chosen=None, human="2+3=5"), step(-1, 0, chosen=1, text="end")])
    assert read_one(tmp_path, row) == Judged(
        "line-1", "2 and 3?", ("step 0", "2+3=5", "end 1"), -1, (1, 1, 1), True, subset="phase 1", answer="5"
    )
    gave_up = prm800k("give_up", [step(1), step(1, text="next"), step(-1, chosen=None)])
    found = read_one(tmp_path, gave_up)
    assert (found.steps, found.first_false, found.right) == (("step 0", "next 0"), None, None)
    assert read_one(tmp_path, prm800k("give_up", [step(1), step(-1)])).first_false == 1


def test_prm800k_phase_2_is_what_was_written_beforehand(tmp_path: Path):
    labelled = [step(0, text="a"), step(-1, 1, chosen=None, text="b")]
    found = read_one(tmp_path, prm800k("found_error", labelled, ["a 0", "b 0", "c 0"]))
    assert found == Judged(
        "line-1", "2 and 3?", ("a 0", "b 0", "c 0"), 1, (1, 0, -1), None, subset="phase 2", answer="5"
    )
    whole = read_one(tmp_path, prm800k("solution", [step(1, text="a"), step(1, text="b")], ["a 0", "b 0"]))
    assert (whole.first_false, whole.right) == (-1, True)
    elsewhere = read_one(tmp_path, prm800k("found_error", [step(1, text="other")], ["a 0"]))
    assert (elsewhere.labels, elsewhere.first_false) == ((-1,), None)  # another step was rated, not this one


def test_a_file_may_be_lines_a_list_or_parquet_gzipped_or_not(tmp_path: Path):
    found = [TRACE, TRACE | {"id": "b", "steps": ["One\u2028 line."], "first_error": -1}]
    lines = write(tmp_path, *found)
    expected = traces.read(lines)
    (tmp_path / "list.json").write_text(json.dumps(found, indent=1))
    pq.write_table(pa.Table.from_pylist(found), tmp_path / "table.parquet")
    for path in (lines, tmp_path / "list.json"):
        path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))
    for name in ("file.gz", "list.json", "list.gz", "table.parquet"):
        assert traces.read(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"a": 1}, "line 2: expected the columns id, problem, steps, label (processbench); or question.problem, "),
        ({"problem": "?", "steps": ["x"]}, r"found problem, steps"),
        (TRACE | {"id": None}, "line 2: expected text or a whole number in 'id', found None"),
        (TRACE | {"question": " "}, "line 2: expected text in 'question', found ' '"),
        (TRACE | {"steps": []}, "line 2: expected 'steps' to be a list of one text or more, found []"),
        (TRACE | {"steps": "2+3=6"}, "line 2: expected 'steps' to be a list"),
        (TRACE | {"steps": ["a", 3]}, "line 2: expected text in step 1 (counted from 0), found 3"),
        (TRACE | {"steps": ["a", " "]}, "line 2: step 1 (counted from 0) is empty, so no value can be read"),
        (TRACE | {"first_error": 2}, "line 2: expected a step from 0 to 1, or -1 for none, in 'first_error', found 2"),
        (TRACE | {"answer_correct": "no"}, "line 2: expected true, false or null in 'answer_correct', found 'no'"),
        (TRACE | {"source": 3}, "line 2: expected text in 'source', found 3"),
        (PROCESSBENCH | {"label": None}, "line 2: expected a step from 0 to 1, or -1 for none, in 'label', found None"),
        (PROCESSBENCH | {"label": True}, "in 'label', found True"),
        (MISTAKE | {"mistake_index": -2}, "in 'mistake_index', found -2"),
        (SHEPHERD | {"input": "2 and 3? Step 1: 5"}, "line 2: expected 'input' to be a question, then steps from"),
        (SHEPHERD | {"label": "2 and 3? Step 1: 2+3=5 *"}, "expected 'label' to be 'input' with + or - for each 'ки'"),
        (SHEPHERD | {"label": "2 and 4?"}, "line 2: expected 'label' to be 'input'"),
        (prm800k("ended", [step(1)]), "line 2: expected label.finish_reason to be one of solution, found_error, "),
        (prm800k("solution", [{}]), "line 2: expected each of label.steps to have completions"),
        (prm800k("solution", [step(1, chosen=3)]), "as PRM800K has them (IndexError"),
        (prm800k("solution", []), "line 2: expected 'steps' to be a list of one text or more"),
    ],
)
def test_bad_rows_are_refused_with_their_place(tmp_path: Path, row: dict[str, Any], message: str):
    path = write(tmp_path, "", row)
    path.write_text(path.read_text().replace('""', "", 1))  # blank lines count
    with pytest.raises(InputError) as error:
        traces.read(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_all_rows_are_of_the_format_of_the_first(tmp_path: Path):
    with pytest.raises(InputError, match=r"line 2: expected the columns id, problem, steps, label; found id, question"):
        traces.read(write(tmp_path, PROCESSBENCH, TRACE))
    with pytest.raises(InputError, match=r"line 1: expected the columns id, problem, steps, label \(processbench\);"):
        traces.read(write(tmp_path, TRACE), only="processbench")


def test_an_id_comes_once(tmp_path: Path):
    with pytest.raises(InputError, match=r"line 2: the id 'a' again"):
        traces.read(write(tmp_path, TRACE, TRACE))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no rows; expected rows with id"),
        (b"[]", "holds no rows"),
        (b"[1]", "entry 1: expected an object with id"),
        (b'[{"id": 1}', "not JSON"),
        (b"{", "line 1: not JSON"),
        (b"\n3", "line 2: expected an object with id"),
        (b"\xff\xfe", "cannot be read"),
        (b"PAR1 and no more", "cannot be read"),
        (gzip.compress(b"{}" * 99)[:-9], "cannot be read"),
        (b"\x1f\x8b\x08\x00 nothing that unpacks", "cannot be read"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, content: bytes, message: str):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        list(rows.read(path, "id"))
    assert f"{path}" in str(error.value)
    assert message in str(error.value)
    with pytest.raises(InputError, match="absent: cannot be read"):
        list(rows.read(tmp_path / "absent", "id"))


TEXT = st.text(alphabet="abc 12+=\u2028é", min_size=1).filter(str.strip)


@given(st.lists(st.tuples(TEXT, st.sampled_from("+-")), min_size=1, max_size=5), TEXT)
def test_math_shepherd_comes_apart_as_it_was_put_together(pairs: list[tuple[str, str]], question: str):
    def joined(signs: list[str]) -> str:
        steps = [f"Step {i}: {text} {sign}" for i, ((text, _), sign) in enumerate(zip(pairs, signs, strict=True), 1)]
        return f"{question} " + "\n".join(steps)

    signs = [sign for _, sign in pairs]
    found = traces.math_shepherd({"input": joined(["ки"] * len(pairs)), "label": joined(signs), "task": "T"}, "line 1")
    assert found.question == question.strip()
    assert [s.partition(": ")[2] for s in found.steps] == [text.rstrip() for text, _ in pairs]
    assert found.labels == tuple(int(sign == "+") for sign in signs)
    assert found.first_false == next((i for i, sign in enumerate(signs) if sign == "-"), -1)


@given(st.data())
def test_no_row_of_any_shape_ends_in_another_error(data: st.DataObject):
    """One value anywhere in a good row becomes something else: that is read, or refused by an InputError."""
    samples = (
        TRACE,
        PROCESSBENCH,
        SHEPHERD,
        MISTAKE,
        prm800k("solution", [step(1)]),
        prm800k("solution", [step(1)], ["a"]),
    )
    row = copy.deepcopy(data.draw(st.sampled_from(samples)))
    place: Any = row
    while True:
        key = data.draw(st.sampled_from(sorted(place)) if isinstance(place, dict) else st.integers(0, len(place) - 1))
        if not isinstance(place[key], dict | list) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(st.sampled_from([None, 0, -5, 1.5, True, "", "text", [], ["a"], {}, {"a": 1}]))
    for columns, parse in traces.FORMATS.values():
        if traces._has(row, columns):
            try:
                assert parse(row, "line 1").steps
            except InputError as error:
                assert "line 1" in str(error)


@pytest.mark.parametrize(
    ("name", "count", "errors", "clean", "right"),
    [
        ("processbench/math.json.gz", 1000, 594, 406, 500),
        ("bigbench_mistake/multistep_arithmetic.jsonl", 300, 238, 62, 45),
        ("bigbench_mistake/logical_deduction.jsonl.gz", 300, 294, 6, 45),
        ("bigbench_mistake/tracking_shuffled_objects.jsonl.gz", 300, 260, 40, 45),
        ("bigbench_mistake/word_sorting.jsonl.gz", 300, 266, 34, 45),
        ("prm_format_samples/samples_math-shepherd.jsonl", 7, 7, 0, 0),
        ("prm_format_samples/samples_prm800k.jsonl", 6, 1, 4, 4),
        ("traces/when.jsonl.gz", 15754, 0, 0, 11202),
        ("traces/where.jsonl.gz", 1888, 1826, 62, 57),
    ],
)
def test_published_files(name: str, count: int, errors: int, clean: int, right: int):
    folder, _, file = name.partition("/")
    found = traces.read(public_data.folder(folder) / file)
    assert len(found) == count
    assert sum(j.first_false is not None and j.first_false >= 0 for j in found) == errors
    assert sum(j.first_false == -1 for j in found) == clean
    assert sum(j.right is True for j in found) == right
    assert all(j.question.strip() and len(j.labels) in (0, len(j.steps)) for j in found)
    assert all(j.first_false == j.labels.index(0) for j in found if 0 in j.labels)


def test_the_published_row_with_an_empty_step_is_named():
    with pytest.raises(InputError, match=r"dyck_languages\.jsonl\.gz, line 539: step 54 \(counted from 0\) is empty"):
        traces.read(public_data.folder("bigbench_mistake") / "dyck_languages.jsonl.gz")


def test_generators_of_processbench():
    found = Counter(j.generator for j in traces.read(public_data.folder("processbench") / "math.json.gz"))
    assert len(found) == 10
    assert found["Meta-Llama-3-70B-Instruct"] == 141
