"""The user's own problems: what is read, and what is refused with its file and line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from glore_jax.errors import InputError
from glore_jax.records import Problem
from glore_jax.tasks import jsonl


def row(question: str = "How many?", answer: object = "12", **more: object) -> str:
    return json.dumps({"question": question, "answer": answer} | more)


@pytest.fixture
def write(tmp_path: Path):
    def to(*lines: str, name: str = "problems.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return to


def test_problems_are_read_with_their_line_as_id(write):
    path = write(row(" One? ", "1"), "", row("Two?", 2, solution="<<1+1=2>>2\n#### 2"), row("½ of three?", "$1.50"))
    assert jsonl.read(path) == [
        Problem("line-1", "One?", "1"),
        Problem("line-3", "Two?", "2", "<<1+1=2>>2\n#### 2"),
        Problem("line-4", "½ of three?", "$1.50"),
    ]


def test_a_worked_answer_gives_its_final_answer(write):
    path = write(row("One?", "Half of 36 is <<36/2=18>>18.\n#### 18"))
    assert jsonl.read(path)[0].answer == "18"


def test_numbers_need_no_quotes(write):
    answers = [problem.answer for problem in jsonl.read(write(row("a", 0), row("b", 2.5), row("c", -3)))]
    assert answers == ["0", "2.5", "-3"]


def test_a_line_separator_within_a_question_does_not_end_the_row(write):
    question = "First line.\u2028Second line?\x85"
    path = write(json.dumps({"question": question, "answer": "1"}, ensure_ascii=False), row())
    assert [p.id for p in jsonl.read(path)] == ["line-1", "line-2"]


def test_lines_may_end_as_on_windows(tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_bytes((row("a") + "\r\n" + row("b") + "\r\n").encode())
    assert [p.question for p in jsonl.read(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"question": "a", "answer": ', r"not JSON \(.*\); expected one object a line"),
        ("question,answer", "not JSON"),
        ('["a", "1"]', "expected an object with question and answer, found list"),
        ("12", "expected an object with question and answer, found int"),
        (row(level=3), "unknown key 'level'; expected question, answer and optionally solution"),
        ('{"question": "a"}', "'answer' is missing or empty"),
        ('{"answer": "1"}', "'question' is missing or empty"),
        (row(question="  "), "'question' is missing or empty"),
        (row(answer=""), "'answer' is missing or empty"),
        (row(answer="  "), "'answer' is missing or empty"),
        (row(answer=None), "the answer must be text or a number, found None"),
        (row(question=7), "question and solution must be text"),  # type: ignore[arg-type]
        (row(solution=["a"]), "question and solution must be text"),
        (row(answer=[1, 2]), "the answer must be text or a number"),
        (row(answer={"value": 5}), "the answer must be text or a number"),
        (row(answer=True), "the answer must be text or a number"),
        (row(answer="twelve"), "the answer 'twelve' holds no number"),
        (row(answer="1/0"), "the answer '1/0' holds no number"),
        (row(answer=float("nan")), "the answer 'nan' holds no number"),
        (row(solution="<<10+2=12>>12"), "the solution must end with a line '#### 12', the answer"),
        (row(solution="<<10+3=13>>13\n#### 13"), "the solution must end with a line '#### 12', the answer"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(write, bad: str, message: str):
    path = write(row("fine"), "", bad, row("also fine"))
    with pytest.raises(InputError, match=rf"problems\.jsonl, line 3: .*{message}"):
        jsonl.read(path)


def test_a_duplicate_question_names_both_lines(write):
    path = write(row("How many nuts?"), row("other"), row("How  many\nnuts? ", "13"))
    with pytest.raises(InputError, match=r"problems\.jsonl, line 3: the question of line 1 again; remove one"):
        jsonl.read(path)


@pytest.mark.parametrize("lines", [(), ("", "   ")])
def test_an_empty_file_is_refused_with_an_example(write, lines: tuple[str, ...]):
    with pytest.raises(InputError, match=r'problems\.jsonl: no problems; expected lines such as \{"question"'):
        jsonl.read(write(*lines))


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.jsonl: cannot be read"):
        jsonl.read(tmp_path / "nowhere.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        jsonl.read(tmp_path)
    (tmp_path / "latin.jsonl").write_bytes('{"question": "Zoë?", "answer": "1"}'.encode("latin-1"))
    with pytest.raises(InputError, match=r"latin\.jsonl: cannot be read .*UTF-8"):
        jsonl.read(tmp_path / "latin.jsonl")


LATEX = r"\frac{1}{2}"


def test_answers_may_be_in_latex(write):
    path = write(
        row("a", LATEX, solution=f"1-1/2\n#### {LATEX}"), row("b", r"\(x+1\)", solution="#### 1+x"), row("c", r"\pi")
    )
    found = jsonl.read(path, "latex")
    assert [p.answer for p in found] == [rf"\({LATEX}\)", r"\(x+1\)", r"\(\pi\)"]
    assert found[0].solution.endswith(LATEX)
    with pytest.raises(
        InputError, match=r"line 3: the answer '.*pi' holds no number; .* --config\.task\.answers=latex"
    ):
        jsonl.read(path)
    with pytest.raises(
        InputError, match=r"line 1: the solution must end with a line '#### .*frac\{1\}\{2\}', the answer"
    ):
        jsonl.read(write(row("a", LATEX, solution="#### 2")), "latex")


def test_a_number_between_latex_brackets_stays_a_number(write):
    assert jsonl.read(write(row("a", r"\(1,250\)")))[0].answer == "1,250"


def task(train: object = "", dev: object = "", test: object = "") -> ConfigDict:
    files = {"train": str(train), "dev": str(dev), "test": str(test)}
    return ConfigDict({"name": "jsonl", "answers": "number"} | files)


def many(first: int, count: int) -> list[str]:
    return [row(f"What is {i}?", i) for i in range(first, first + count)]


def test_a_tenth_each_is_cut_off_for_dev_and_test(write):
    splits = jsonl.load(task(write(*many(0, 400))))
    sizes = {name: len(rows) for name, rows in splits.items()}
    assert sum(sizes.values()) == 400
    assert 20 <= sizes["dev"] <= 60
    assert 20 <= sizes["test"] <= 60
    everything = [p.question for rows in splits.values() for p in rows]
    assert len(set(everything)) == 400
    assert all(p.id.startswith(f"{name}-line-") for name, rows in splits.items() for p in rows)


def test_where_a_problem_goes_depends_on_its_question_alone(write):
    lines = many(0, 200)
    a = jsonl.load(task(write(*lines)))
    b = jsonl.load(task(write(*reversed(lines), *many(500, 100), name="more.jsonl")))
    for name in ("train", "dev", "test"):
        assert {p.question for p in a[name]} <= {p.question for p in b[name]}


def test_given_splits_are_taken_as_they_are(write):
    train, dev, test = (write(*many(i, 3), name=f"{i}.jsonl") for i in (0, 10, 20))
    splits = jsonl.load(task(train, dev, test))
    assert [p.answer for p in splits["dev"]] == ["10", "11", "12"]
    assert [p.id for p in splits["test"]] == ["test-line-1", "test-line-2", "test-line-3"]
    assert len(splits["train"]) == 3


def test_with_dev_given_only_test_is_cut_off(write):
    splits = jsonl.load(task(write(*many(0, 100)), dev=write(*many(500, 5), name="dev.jsonl")))
    assert len(splits["dev"]) == 5
    assert len(splits["train"]) + len(splits["test"]) == 100
    assert 2 <= len(splits["test"]) <= 25


def test_shared_questions_are_refused(write):
    train, dev = write(*many(0, 5)), write(row("What  is 3?", 3), row("new"), name="dev.jsonl")
    with pytest.raises(InputError, match=r"task\.train and task\.dev share 1 questions, such as 'What is 3\?'"):
        jsonl.load(task(train, dev, write(*many(50, 2), name="test.jsonl")))


def test_without_a_train_file_the_option_is_named():
    with pytest.raises(InputError, match=r"task\.train is empty; .*--config\.task\.train=problems\.jsonl"):
        jsonl.load(task())


def test_a_split_that_comes_out_empty_is_refused(write):
    with pytest.raises(InputError, match=r"task\.(dev|test) holds no problem; give more problems, or a file"):
        jsonl.load(task(write(row("alone"))))


@given(st.text(st.characters(codec="utf-8"), max_size=40), st.integers(-1000, 1000))
def test_any_question_survives_the_file(tmp_path_factory, question: str, answer: int):
    path = tmp_path_factory.mktemp("rows") / "problems.jsonl"
    line = json.dumps({"question": f"Q {question} ?", "answer": answer}, ensure_ascii=False)
    path.write_text(line + "\n" + row("the other one"), encoding="utf-8")
    first, second = jsonl.read(path)
    assert (first.question, first.answer) == (f"Q {question} ?", str(answer))
    assert second.id == "line-2"
