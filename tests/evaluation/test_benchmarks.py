"""Step values against other people's verdicts: by hand, as properties, and on the published files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import public_data
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax import cli
from glore_jax.decisions import THRESHOLDS, best_threshold, first_below
from glore_jax.errors import InputError
from glore_jax.evaluation import final_values, first_errors, predictions
from glore_jax.evaluation.predictions import Predicted
from glore_jax.records import Judged
from glore_jax.tasks import traces


def questions(dev: bool, count: int) -> list[str]:
    """The first questions that are, or are not, in the dev part."""
    found = (f"What is {i} + 2?" for i in range(1000))
    return [q for q in found if predictions.in_dev(Judged("", q, ("",))) == dev][:count]


DEV, REST = questions(True, 8), questions(False, 8)


def item(
    question: str, values: Sequence[float], false: int | None = None, right: bool | None = None, **more: str
) -> Predicted:
    steps = tuple(f"step {i}" for i in range(len(values)))
    return Predicted(Judged(f"{question} {values}", question, steps, false, (), right, **more), tuple(values))


def located() -> list[Predicted]:
    """At 0.5: 2 of 3 errors named and 1 of 2 clean ones passed; on the dev part 0.62 to 0.9 do best."""
    return [
        item(DEV[0], (0.9, 0.6), false=1),
        item(DEV[1], (0.9, 0.9), false=-1),
        item(REST[0], (0.9, 0.2, 0.9), false=1, generator="G"),
        item(REST[0], (0.4, 0.3), false=0, generator="G"),
        item(REST[1], (0.9, 0.75), false=1, generator="H"),
        item(REST[2], (0.9, 0.8), false=-1, generator="G"),
        item(REST[3], (0.9, 0.3), false=-1, generator="H"),
        item(REST[4], (0.1,), false=None),
    ]


def test_first_errors_by_hand():
    result = first_errors.measure(located())
    assert result["threshold"] == pytest.approx(0.76)  # the middle of 0.62 to 0.9
    assert (result["left_out"], result["dev"], result["measured"]) == (1, 2, 5)
    assert result["random_step"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 2) / 3)
    rows = {(row["name"], row["threshold"]): row for row in result["rows"]}
    assert list(rows) == [(name, at) for name in ("all", "G", "H") for at in (0.5, result["threshold"])]
    whole = rows["all", 0.5]
    assert (whole["group"], whole["errors"], whole["clean"]) == ("all", 3, 2)
    assert whole["error_accuracy"]["value"] == pytest.approx(2 / 3)
    assert whole["clean_accuracy"]["value"] == 0.5
    assert whole["f1"]["value"] == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))
    assert whole["f1"]["low"] <= whole["f1"]["value"] <= whole["f1"]["high"]
    tuned = rows["all", result["threshold"]]
    assert (tuned["error_accuracy"]["value"], tuned["clean_accuracy"]["value"]) == (1.0, 0.5)
    assert rows["H", 0.5]["f1"]["value"] == 0.0  # neither its error nor its clean one
    assert rows["G", 0.5]["f1"]["value"] == 1.0


def test_where_the_best_threshold_is_one_half_it_stands_once():
    items = [item(q[0], (0.49, 0.3), false=0) for q in (DEV, REST)] + [
        item(q[1], (0.51,), false=-1) for q in (DEV, REST)
    ]
    result = first_errors.measure(items)
    assert result["threshold"] == 0.5
    assert [row["threshold"] for row in result["rows"]] == [0.5]


VALUES = st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), min_size=1, max_size=4)


@given(st.lists(st.tuples(VALUES, st.integers(-1, 3)), max_size=20))
def test_first_errors_equal_a_count_one_by_one(found: list[tuple[list[float], int]]):
    fixed = [item(q, (0.2,), false=f) for q, f in ((DEV[0], 0), (DEV[1], -1), (REST[0], 0), (REST[1], -1))]
    drawn = [item(REST[i % 8], v, false=min(f, len(v) - 1)) for i, (v, f) in enumerate(found)]
    result = first_errors.measure([*fixed, *drawn])
    for row in result["rows"]:
        hits: dict[bool, list[bool]] = {True: [], False: []}
        for i in (*fixed[2:], *drawn):
            hits[i.judged.first_false != -1].append(first_below(i.values, row["threshold"]) == i.judged.first_false)
        a, b = (sum(h) / len(h) for h in hits.values())
        assert row["error_accuracy"]["value"] == pytest.approx(a)
        assert row["clean_accuracy"]["value"] == pytest.approx(b)
        assert row["f1"]["value"] == pytest.approx(2 * a * b / (a + b) if a + b else 0.0)


def test_what_is_not_measured_cannot_move_the_threshold():
    items = located()
    others = [i if predictions.in_dev(i.judged) else Predicted(i.judged, tuple(1 - v for v in i.values)) for i in items]
    assert first_errors.measure(items)["threshold"] == first_errors.measure(others)["threshold"]


def answered() -> list[Predicted]:
    """G and H answer the same three questions, of which one is dev."""
    return [
        item(REST[0], (0.2, 0.9), right=True, generator="G"),
        item(REST[0], (0.1, 0.8, 0.8), right=False, generator="H"),
        item(REST[1], (0.7,), right=False, generator="G"),
        item(REST[1], (0.7, 0.7), right=True, generator="H"),
        item(DEV[0], (0.6,), right=True, generator="G"),
        item(DEV[0], (0.55,), right=False, generator="H"),
        item(REST[2], (0.5,), generator="H"),
    ]


def test_final_values_by_hand():
    result = final_values.measure(answered())
    assert (result["left_out"], result["solutions"], result["questions"]) == (1, 6, 3)
    rows = {row["name"]: row for row in result["rows"]}
    assert {name: (row["solutions"], row["right"]) for name, row in rows.items()} == {
        "G": (3, 2), "H": (3, 1), final_values.WITHIN: (6, 3),
    }  # fmt: skip
    assert rows["G"]["auroc"]["value"] == 0.5  # 0.9 beats 0.7, 0.6 does not
    assert rows["H"]["auroc"]["value"] == 0.5  # 0.7 beats 0.55, not 0.8
    assert rows["within a question"]["auroc"]["value"] == pytest.approx(2.5 / 3)  # two wins and a tie
    assert rows["within a question"]["shorter"]["value"] == pytest.approx(1.5 / 3)  # shorter, longer, as long
    assert rows["G"]["shorter"]["value"] == pytest.approx(0.5 / 2)  # two steps and one, of which the wrong one has one
    assert result["threshold"] == 0.58  # only 0.56, 0.58 and 0.6 part 0.55 from 0.6
    accuracies = {row["threshold"]: row for row in result["accuracies"]}
    assert list(accuracies) == [0.5, 0.58]
    assert accuracies[0.5]["balanced_accuracy"]["value"] == 0.5  # all are called right
    assert (accuracies[0.5]["right"], accuracies[0.5]["wrong"]) == (2, 2)


def test_calibration_by_hand():
    """Bins of 0.5 to 0.6, 0.6 to 0.7, 0.7 to 0.8, 0.8 to 0.9, and 0.9 to 1."""
    result = final_values.measure(answered())
    assert [(b["low"], b["solutions"], b["right"]) for b in result["bins"]] == [
        (0.5, 1, 0.0), (0.6, 1, 1.0), (0.7, 2, 0.5), (0.8, 1, 0.0), (0.9, 1, 1.0),
    ]  # fmt: skip
    assert result["calibration_error"]["value"] == pytest.approx((0.55 + 0.4 + 2 * 0.2 + 0.8 + 0.1) / 6)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(0, 7)), max_size=30))
def test_calibration_error_equals_a_sum_one_by_one(found: list[tuple[float, bool, int]]):
    fixed = [item(q[i], (float(i),), right=i == 0) for q in (DEV, REST) for i in (0, 1)]
    items = fixed + [item(REST[n], (value,), right=right) for value, right, n in found]
    result = final_values.measure(items)
    assert sum(b["solutions"] for b in result["bins"]) == len(items)
    total = sum(b["solutions"] * abs(b["mean_value"] - b["right"]) for b in result["bins"])
    assert result["calibration_error"]["value"] == pytest.approx(total / len(items))
    for b in result["bins"]:
        inside = [i.judged.right for i in items if min(int(i.values[-1] * 10), 9) == round(b["low"] * 10)]
        assert (b["solutions"], b["right"]) == (len(inside), pytest.approx(np.mean(inside)))


def test_perfect_values_have_perfect_figures():
    items = [item(q, (float(right),), right=right) for q in (*DEV, *REST) for right in (True, False)]
    result = final_values.measure(items)
    assert [row["auroc"] for row in result["rows"]] == [{"value": 1.0, "low": 1.0, "high": 1.0}] * 2
    assert result["calibration_error"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert {row["balanced_accuracy"]["low"] for row in result["accuracies"]} == {1.0}


def test_the_interval_draws_questions_with_all_their_pairs():
    """Of two questions one is always ordered rightly and one never: a resample gives 0, a half or 1."""
    items = [item(REST[0], (v,), right=v > 0.5) for v in (0.9, 0.1, 0.2)]
    items += [item(DEV[0], (v,), right=v < 0.5) for v in (0.9, 0.1, 0.8)]
    within = final_values.measure(items)["rows"][-1]["auroc"]
    assert within == {"value": 0.5, "low": 0.0, "high": 1.0}


@pytest.mark.parametrize(
    ("items", "module", "message"),
    [
        ([item(REST[0], (0.5,))], first_errors, "no solution has a first false step"),
        ([item(REST[0], (0.5,))], final_values, "of no solution is it known"),
        (
            located()[1:],
            first_errors,
            "tuned on has 0 solutions with an error and 1 without, the part that is measured 3",
        ),
        (
            answered()[:4],
            final_values,
            "tuned on has 0 right answers and 0 wrong ones, the part that is measured 2 and 2",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(items: list[Predicted], module: Any, message: str):
    with pytest.raises(InputError, match=message):
        module.measure(items)


def test_the_parts_share_no_question_and_are_three_to_seven():
    inside = [predictions.in_dev(Judged("", f"Question {i}", ("",))) for i in range(2000)]
    assert 0.27 < np.mean(inside) < 0.33
    spaced = Judged("", " Question\n 17 ", ("",))
    assert predictions.in_dev(spaced) == predictions.in_dev(Judged("", "Question 17", ("",)))


def test_the_best_threshold_is_the_middle_of_the_best():
    assert best_threshold(lambda t: float(0.3 <= t <= 0.5)) == 0.4
    assert best_threshold(lambda t: -abs(t - 0.9)) == 0.9
    assert best_threshold(lambda t: 0.0) == THRESHOLDS[len(THRESHOLDS) // 2] == 0.5


SOLUTIONS = [Judged(name, "?", ("x", "y")) for name in "abcde"]
ALL = [{"id": name, "values": [0.5, 1]} for name in "abcde"]


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_predictions_are_matched_by_id(tmp_path: Path):
    found = predictions.read(write(tmp_path / "p.jsonl", [*ALL[::-1]]), SOLUTIONS)
    assert found == [Predicted(judged, (0.5, 1.0)) for judged in SOLUTIONS]
    pq.write_table(pa.Table.from_pylist(ALL), tmp_path / "p.parquet")
    assert predictions.read(tmp_path / "p.parquet", SOLUTIONS) == found


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (ALL[4:], r"4 solutions have no values \(a, b, c, …\); score the same file that is measured"),
        ([*ALL, {"id": "z", "values": [1]}], r"p\.jsonl: 1 ids are of no solution \(z\)"),
        ([*ALL[1:], {"id": 7, "values": [1]}], r"1 solutions have no values \(a\), and 1 ids are of no solution \(7\)"),
        ([*ALL, ALL[0]], "line 6: the id 'a' again"),
        ([{"id": "a", "values": [0.5]}, *ALL[1:]], "line 1: 1 values for the 2 steps of 'a'"),
        (
            [{"id": "a", "values": [0.5, 1.5]}],
            r"line 1: expected 'values' to be a list of probabilities, 0 to 1; found",
        ),
        ([{"id": "a", "values": [0.5, float("nan")]}], "expected 'values' to be a list of probabilities"),
        ([{"id": "a", "values": 0.5}], "expected 'values' to be a list of probabilities, 0 to 1; found 0.5"),
        ([{"id": "a", "first_error": 1}], "line 1: expected id and values, found id, first_error"),
        ([], "holds no rows; expected rows with id and values"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path: Path, rows: list[Any], message: str):
    with pytest.raises(InputError, match=message):
        predictions.read(write(tmp_path / "p.jsonl", rows), SOLUTIONS)


def guesses(path: Path, solutions: Sequence[Judged]) -> Path:
    """Values that know a little: lower from the first false step on, and where the answer is wrong."""
    rng, rows = np.random.default_rng(0), []
    for judged in solutions:
        values = rng.uniform(0.4, 1.0, len(judged.steps))
        if judged.first_false is not None and judged.first_false >= 0:
            values[judged.first_false :] -= 0.3
        if judged.right is False:
            values[-1] -= 0.1
        rows.append({"id": judged.id, "values": values.tolist()})
    return write(path, rows)


def run(tmp_path: Path, benchmark: str, source: Path) -> dict[str, Any]:
    predicted = guesses(tmp_path / "guesses.jsonl", traces.read(source))
    words = [f"--benchmark={benchmark}", f"--input={source}", f"--predictions={predicted}"]
    assert cli.main(["evaluate", *words, f"--output={tmp_path / 'out.json'}"]) == 0
    return json.loads((tmp_path / "out.json").read_text())


def own_file(tmp_path: Path) -> Path:
    rows = []
    for n, i in enumerate((*located(), *answered())):
        known = {"first_error": i.judged.first_false, "answer_correct": i.judged.right, "generator": i.judged.generator}
        rows.append({"id": n, "question": i.judged.question, "steps": list(i.judged.steps)} | known)
    return write(tmp_path / "solutions.jsonl", rows)


@pytest.mark.parametrize(
    ("benchmark", "shown", "left_out"), [("where", "First error: percent", 8), ("when", "Calibration, percent", 9)]
)
def test_the_command_prints_tables_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], benchmark: str, shown: str, left_out: int
):
    result = run(tmp_path, benchmark, own_file(tmp_path))
    out = capsys.readouterr().out
    assert shown in out
    assert f"Threshold {result['threshold']:g} is the best" in out
    assert f"Written: {tmp_path / 'out.json'}" in out
    assert result["benchmark"] == benchmark
    assert result["left_out"] == left_out
    assert all(result["definitions"].values())


def test_processbench_takes_its_own_format_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = own_file(tmp_path)
    words = ["evaluate", "--benchmark=processbench", f"--input={source}", f"--predictions={source}"]
    assert cli.main(words) == 2
    assert "line 1: expected the columns id, problem, steps, label (processbench); found id" in capsys.readouterr().err


def test_processbench_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    result = run(tmp_path, "processbench", public_data.folder("processbench") / "math.json.gz")
    assert result["dev"] + result["measured"] == 1000
    assert 250 < result["dev"] < 350
    whole = [row for row in result["rows"] if row["group"] == "all"]
    assert [row["threshold"] for row in whole] == [0.5, result["threshold"]]
    assert {row["errors"] + row["clean"] for row in whole} == {result["measured"]}
    assert len({row["name"] for row in result["rows"] if row["group"] == "generator"}) == 10
    assert whole[1]["f1"]["value"] > whole[0]["f1"]["value"] > 0
    assert 0.1 < result["random_step"] < 0.25
    assert "Meta-Llama-3-70B-Instruct" in capsys.readouterr().out


def test_where_and_when_published(tmp_path: Path):
    folder = public_data.folder("traces")
    where = run(tmp_path, "where", folder / "where.jsonl.gz")
    assert where["dev"] + where["measured"] == 1888
    assert {row["group"] for row in where["rows"]} == {"all", "subset", "generator"}
    when = run(tmp_path, "when", folder / "when.jsonl.gz")
    assert (when["solutions"], when["questions"], len(when["rows"])) == (15754, 877, 19)
    assert all(row["auroc"]["low"] > 0.5 for row in when["rows"])
