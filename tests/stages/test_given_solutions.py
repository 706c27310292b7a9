"""`glore label`: step labels for solutions that the pipeline did not write, from a model that it did not train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_run
from ml_collections import ConfigDict

from glore_jax import cli, files, goodput
from glore_jax.errors import InputError
from glore_jax.method import labels as labelling
from glore_jax.records import StepLabels
from glore_jax.sampling.requests import Request
from glore_jax.sampling.work import Work
from glore_jax.stages import artifacts, given_solutions, rollout_parts, taking_base
from glore_jax.stages.rollout_parts import RolloutParts
from glore_jax.tasks import traces
from glore_jax.tasks.arithmetic import first_false_step, make_problem
from glore_jax.text import formats

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "glore_jax" / "assets" / "arithmetic_base"
PROBLEMS = [make_problem(0, "train", i, (1, 1, 1, 0, 0, 0, 0)) for i in range(6)]


def rows() -> list[dict[str, Any]]:
    """Of each problem the worked solution, and one whose last result and answer are wrong; the first of these twice."""
    found = []
    for problem in PROBLEMS:
        steps = formats.split_steps(problem.solution)
        number = steps[-1].removeprefix("#### ")
        false = [*steps[:-2], steps[-2].replace(number, "777"), "#### 777"]
        for name, written in (("right", steps), ("wrong", false)):
            own = {"id": f"{problem.id}/{name}", "question": problem.question, "answer": problem.answer}
            found.append(own | {"steps": written, "first_error": first_false_step(problem.facts, written)})
    return [*found, found[1] | {"id": "again", "first_error": None}]


def write(folder: Path, found: list[dict[str, Any]]) -> Path:
    path = folder / "solutions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in found))
    return path


def label(source: Path, output: Path, *more: str, model: Path = SHIPPED) -> int:
    words = ["label", f"--config={ROOT / 'configs' / 'label.py'}", f"--model={model}", f"--input={source}"]
    small = ["--config.sampling.slots=16", "--config.sampling.sources=4", "--config.sampling.max_new_tokens=96"]
    sizes = ["--config.sampling.buckets=160,224", "--config.labels.rollouts=2"]
    return cli.main([*words, f"--output={output}", *small, *sizes, *more])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labelled")
    assert label(write(folder, rows()), folder / "out", "--config.labels.search=all") == 0
    return folder / "out"


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_step_of_every_solution_has_a_label(labelled: Path):
    made = read(labelled / "export" / "labels.jsonl")
    assert [row["id"] for row in made] == [row["id"] for row in rows()]
    for row, given in zip(made, rows(), strict=True):
        assert row["steps"] == given["steps"]
        assert len(row["labels"]) == len(row["rollouts"]) == len(row["right"]) == len(row["steps"])
        if given["id"].endswith("right"):
            assert set(row["labels"]) == {1} and set(row["rollouts"]) == {0}  # propagation: no rollouts needed
        else:
            assert row["labels"][-1] == 0
            assert row["rollouts"] == [2] * (len(row["steps"]) - 1) + [0]
    wrong = [x for row, given in zip(made, rows(), strict=True) if given["first_error"] != -1 for x in row["labels"]]
    assert 0 < sum(wrong) < len(wrong)  # the shipped model mends some


def test_the_time_of_rollouts_is_that_of_sampling(labelled: Path):
    spent = goodput.of_stages(labelled)["labels"]
    assert spent["sampling"] > 0.5 * (sum(spent.values()) - spent["compile"])


def test_equal_solutions_are_labelled_once(labelled: Path):
    made = {row["id"]: row for row in read(labelled / "export" / "labels.jsonl")}
    first = f"{PROBLEMS[0].id}/wrong"
    assert made["again"]["labels"] == made[first]["labels"]
    assert "again" not in {entry.trace_id for entry in files.read_table(labelled / "labels/labels.parquet", StepLabels)}
    assert "again" not in RolloutParts(labelled / "labels")


def test_equal_prefixes_far_apart_are_continued_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Solutions to a question lie in one part, wherever in the file they are."""
    monkeypatch.setattr(rollout_parts, "TRACES_A_PART", 4)
    found = [row for row in rows() if row["id"].endswith("wrong")]
    found += [row | {"id": f"{row['id']} too", "steps": [*row["steps"][:-1], "#### 778"]} for row in found]
    asked: list[str] = []
    add = Work.add

    def adding(work: Work, request: Request) -> None:
        asked.append(request.id)
        add(work, request)

    monkeypatch.setattr(Work, "add", adding)
    assert label(write(tmp_path, found), tmp_path / "out", "--config.labels.search=all") == 0
    made = {row["id"]: row for row in read(tmp_path / "out" / "export" / "labels.jsonl")}
    for row in found[: len(PROBLEMS)]:
        one, other = made[row["id"]], made[f"{row['id']} too"]
        assert (one["rollouts"], one["right"]) == (other["rollouts"], other["right"])
    assert len(asked) == len(set(asked)) == sum(sum(made[row["id"]]["rollouts"]) for row in found[: len(PROBLEMS)])


def test_the_exports_say_the_same(labelled: Path):
    made = read(labelled / "export" / "labels.jsonl")
    shepherd = traces.read(labelled / "export" / "math_shepherd.jsonl", "math_shepherd")
    assert [list(judged.labels) for judged in shepherd] == [row["labels"] for row in made]
    trl = read(labelled / "export" / "trl.jsonl")
    assert [(row["prompt"], row["completions"]) for row in trl] == [(row["question"], row["steps"]) for row in made]
    assert [row["labels"] for row in trl] == [[bool(x) for x in row["labels"]] for row in made]


def test_datasets_reads_the_exports(labelled: Path, tmp_path: Path):
    """Each as its own format has it: the columns of Math-Shepherd, and those of TRL's stepwise supervision."""
    datasets = pytest.importorskip("datasets")
    texts, truths = datasets.Value("string"), datasets.Value("bool")
    columns = {
        "math_shepherd": dict.fromkeys(("input", "label", "task"), texts),
        "trl": {"prompt": texts, "completions": datasets.List(texts), "labels": datasets.List(truths)},
    }
    for name, features in columns.items():
        path = labelled / "export" / f"{name}.jsonl"
        found = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path))
        assert found.features == datasets.Features(features)
        assert list(found) == read(path)


@pytest.mark.parametrize(("search", "noise"), [("backward", "prefixes with 2 rollouts"), ("first", "not estimated")])
def test_a_search_gives_the_same_labels_with_fewer_rollouts(
    labelled: Path, tmp_path: Path, search: str, noise: str, capsys: pytest.CaptureFixture[str]
):
    assert label(write(tmp_path, rows()), tmp_path / "out", f"--config.labels.search={search}") == 0
    assert noise in capsys.readouterr().out
    whole, less = (read(folder / "export" / "labels.jsonl") for folder in (labelled, tmp_path / "out"))
    assert [row["labels"] for row in whole] == [row["labels"] for row in less]
    assert sum(map(sum, (row["rollouts"] for row in less))) < sum(map(sum, (row["rollouts"] for row in whole)))
    # Each step of the way is seen at the prefixes that somebody looked at, and is there what it is in the whole.
    found, everywhere = (files.read_json(folder / "labels" / "audit.json") for folder in (tmp_path / "out", labelled))
    names = [row["name"] for row in found["ablation"]]
    assert names[:4] == [row["name"] for row in everywhere["ablation"]][:4]
    assert names[0] == "raw any-of-K" and names[1] == "+ consistency"
    looked, right = 0, 0
    for row in less[:-1]:  # all but the one that is there twice
        known = [r > 0 for r in row["rollouts"][:-1]] + [True] if 0 in row["labels"] else [True] * len(row["labels"])
        mended = [r > 0 for r in row["right"][:-1]] + [False] if 0 in row["labels"] else known
        looked, right = looked + sum(known), right + sum(mended)
    raw = [row for row in found["rates"] if row["stage"] == "raw"]
    assert (sum(row["count"] for row in raw), sum(row["positive"] for row in raw)) == (looked, right)
    assert 0 < right < looked < sum(row["count"] for row in everywhere["rates"] if row["stage"] == "raw")


def test_the_report(labelled: Path, capsys: pytest.CaptureFixture[str]):
    assert cli.main(["label-report", str(labelled)]) == 0
    out = capsys.readouterr().out
    made = files.read_table(labelled / "labels" / "labels.parquet", StepLabels)
    assert f"12 solutions, {sum(len(entry.labels) for entry in made)} labels" in out
    assert "agreement with the known first false step (12 solutions)" in out
    assert "prefixes with 2 rollouts" in out
    audit = files.read_json(labelled / "labels" / "audit.json")
    assert audit["noise"]["prefixes"] == sum(audit["noise"]["counts"]) > 0
    false = {row["id"]: row["first_error"] for row in rows() if row["id"] != "again"}
    pairs = labelling.agreement(made, false)
    own = next(row for row in audit["ablation"] if row["name"] == "+ propagation")
    assert own["accuracy"] == sum(p[0] for p in pairs) / sum(p[1] for p in pairs)


def test_a_finished_one_typed_again_prints_its_report(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    source = labelled.parent / "solutions.jsonl"
    assert label(source, labelled, "--config.labels.search=all") == 0
    assert "The labels: " in capsys.readouterr().out
    assert label(source, labelled) == 2
    assert "labels.search" in capsys.readouterr().err


GOOD = {"id": "a", "question": "2 and 3?", "answer": "5", "steps": ["2+3 = 5", "#### 5"]}


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ([GOOD | {"answer": None}], "solution 'a': expected the right answer to its question in 'answer'"),
        ([GOOD | {"answer": "five"}], "found 'five'"),
        ([GOOD, GOOD | {"id": "b", "answer": "6"}], "solution 'b': its question has the answer '5' elsewhere"),
        ([GOOD | {"steps": ["It is 5."]}], "no solution ends with '#### ANSWER', and of 1 nobody says"),
        ([GOOD | {"steps": ["many words " * 200, "#### 5"]}], "1 solutions have prefixes of more than 224 tokens: 'a'"),
    ],
)
def test_bad_solutions(found: list[dict[str, Any]], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert label(write(tmp_path, found), tmp_path / "out") == 2
    assert problem in capsys.readouterr().err.replace("\n", " ")


def test_numbers_in_latex_have_the_labels_of_numbers(labelled: Path, tmp_path: Path):
    """All the way through rollouts: each right answer is a fraction that the model has to come to as a number."""
    given = [row | {"answer": rf"\frac{{{2 * int(row['answer'])}}}{{2}}"} for row in rows()]
    words = "--config.labels.search=all", "--config.task.answers=latex"
    assert label(write(tmp_path, given), tmp_path / "out", *words) == 0
    made, numbers = (read(folder / "export" / "labels.jsonl") for folder in (tmp_path / "out", labelled))
    for key in ("labels", "rollouts", "right"):
        assert [row[key] for row in made] == [row[key] for row in numbers]
    assert made[0]["answer"] == rf"\({given[0]['answer']}\)"


def test_answers_may_be_in_latex(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    half = GOOD | {"answer": r"\frac{1}{2}", "steps": ["1-1/2 = 1/2", r"#### \dfrac12"]}
    given = [half, half | {"id": "b", "answer": "0.5", "steps": ["#### 2"]}]
    judged = given_solutions._judge(traces.read(write(tmp_path, given)), "latex")
    assert [row.right for row in judged] == [True, False]
    assert [row.answer for row in judged] == [r"\(\frac{1}{2}\)", r"\(0.5\)"]
    assert label(write(tmp_path, given), tmp_path / "numbers") == 2
    assert "its question has the answer" in capsys.readouterr().err  # as numbers, 1/2 in LaTeX is 2
    assert label(write(tmp_path, [half]), tmp_path / "tex", "--config.task.answers=tex") == 2
    assert "task.answers='tex': expected one of number, latex" in capsys.readouterr().err


def test_verdicts_that_are_given_stand(tmp_path: Path):
    given = [GOOD, GOOD | {"id": "b", "answer_correct": False}, GOOD | {"id": "c", "steps": ["2+3 = 5"]}]
    judged = given_solutions._judge(traces.read(write(tmp_path, given)), "number")
    assert [row.right for row in judged] == [True, False, False]  # c says no answer, where others do


def test_a_model_that_never_answers_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tiny_run.make(tmp_path / "run")
    wrong = [GOOD | {"steps": ["2+3 = 6", "#### 6"]}]
    assert label(write(tmp_path, wrong), tmp_path / "out", model=run / "expert_iteration") == 2
    assert "none of 2 rollouts ends with '#### ANSWER'" in capsys.readouterr().err.replace("\n", " ")


def test_a_value_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tiny_run.make(tmp_path / "run")
    assert label(write(tmp_path, [GOOD]), tmp_path / "out", model=run / "sorm") == 2
    assert "a value model; expected a language model" in capsys.readouterr().err


def test_the_stage_of_a_run_has_its_tokenizer_beside_it(tmp_path: Path):
    run = tiny_run.make(tmp_path / "run")
    assert artifacts.tokenizer_folder(run / "expert_iteration") == (run / "base").resolve()
    assert artifacts.tokenizer_folder(SHIPPED) == SHIPPED
    config = ConfigDict({"base": {"path": str(run / "expert_iteration"), "adapter": ""}})
    assert {path.parent.name for path in taking_base.files_of(config)} == {"expert_iteration", "base"}


def test_a_report_needs_labels(tmp_path: Path):
    with pytest.raises(InputError, match="label"):
        from glore_jax import stages

        stages.print_labels(tiny_run.make(tmp_path / "run"))
