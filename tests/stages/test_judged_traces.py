"""`glore train` on judged solutions: every stage on a few made-up ones, and what the stages hand on."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkpoints as folders
import handmade
import jax
import public_data
import pytest
import smoke_run
import vocabularies
from ml_collections import ConfigDict

from glore_jax import cli, configuration, files, pipeline, stages
from glore_jax.errors import InputError
from glore_jax.interrupts import Stop
from glore_jax.method import reward_models
from glore_jax.pipeline import StageContext
from glore_jax.records import Judged, Problem, Scored, Solution, StepLabels
from glore_jax.stages import artifacts, judged_traces, reports, taking_base
from glore_jax.tasks import judged
from glore_jax.text import pretrained

CONFIG = Path(__file__).parents[2] / "configs" / "traces_value.py"
COUNT = 40  # questions


def solutions() -> list[dict[str, Any]]:
    """A right and a wrong solution to each question; in half of the wrong ones the first step is false already."""
    rng, rows = random.Random(0), []
    for i in range(COUNT):
        a, b, c = (rng.randint(2, 30) for _ in range(3))
        question = f"Ann has {a} nuts and finds {b} more, then she gives {c} to Ben. How many are left? ({i})"
        for right in (True, False):
            first = a + b + (0 if right or i % 2 else 1)
            last = first - c + (0 if right or not i % 2 else 2)
            steps = [f"She has {a}+{b} = <<{a}+{b}={first}>>{first}.", f"Left: {first}-{c} = {last}", f"#### {last}"]
            verdicts = {"answer_correct": right, "first_error": -1 if right else i % 2}
            row = {"id": f"{i}{right}", "question": question, "steps": steps, "generator": "AB"[(i + right) % 2]}
            rows.append(row | verdicts)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config_of(source: Path, *overrides: str) -> ConfigDict:
    given = [f"--config.task.{kind}={source}" for kind in judged.KINDS]
    return configuration.load(f"{CONFIG}:smoke", [*given, *overrides])


def context_of(folder: Path, name: str, config: ConfigDict) -> StageContext:
    """A stage by itself, on the folders of those that ran before it."""
    stage = next(stage for stage in stages.of(config) if stage.name == name)
    (folder / name).mkdir(parents=True)
    part = ConfigDict(configuration.select(config, stage.config_keys))
    return StageContext(stage, part, folder, folder / name, False, 0, lambda given: folder / given, Stop())


def prepared(folder: Path, rows: list[dict[str, Any]], *overrides: str) -> ConfigDict:
    """Runs the stage `problems`, and puts the hand-made tokenizer where `base` would."""
    config = config_of(write(folder / "rows.jsonl", rows), *overrides)
    judged_traces.problems(context_of(folder, "problems", config))
    (folder / "base").mkdir()
    handmade.tokenizer().save(folder / "base")
    return config


def test_traces_are_the_train_solutions_in_tokens(tmp_path: Path):
    rows = solutions()
    counts = judged_traces.traces(context_of(tmp_path, "traces", prepared(tmp_path, rows)))
    found = files.read_table(tmp_path / "traces" / "traces.parquet", Solution)
    expected = [row for row in rows if judged.split_of(row["question"]) == "train"]
    assert [(s.id, s.steps, s.right) for s in found] == [
        (row["id"], row["steps"], row["answer_correct"]) for row in expected
    ]
    assert counts == {"traces": len(expected), "right": 0.5}
    questions = {p.id: p.question for p in files.read_table(tmp_path / "problems" / "train.parquet", Problem)}
    assert [questions[s.problem_id] for s in found] == [row["question"] for row in expected]
    tokenizer = handmade.tokenizer()
    for s in found:
        assert all(s.tokens[end - 1] == tokenizer.step_end for end in s.step_ends)


def test_step_labels_are_right_before_the_first_error_and_wrong_from_it_on(tmp_path: Path):
    config = prepared(tmp_path, solutions(), "--config.labels.balance=false")
    counts = judged_traces.labels(context_of(tmp_path, "labels", config))
    found = files.read_table(tmp_path / "labels" / "balanced.parquet", StepLabels)
    by_hand = {"True": (1, 1, 1), "0False": (0, 0, 0), "1False": (1, 0, 0)}
    for entry in found:
        number, right = entry.trace_id.rstrip("TrueFals"), entry.trace_id.endswith("True")
        assert entry.labels == by_hand["True" if right else f"{int(number) % 2}False"]
    assert [s.id for s in files.read_table(tmp_path / "labels" / "traces.parquet", Solution)] == [
        entry.trace_id for entry in found
    ]
    positive = sum(x for entry in found for x in entry.labels)
    assert counts["positive"] == positive / counts["labels"] == positive / (3 * len(found))


def test_balance_leaves_as_many_right_as_wrong_labels(tmp_path: Path):
    config = prepared(tmp_path, solutions())
    assert judged_traces.labels(context_of(tmp_path, "labels", config))["positive"] == 0.5


def test_labels_of_one_class_are_refused(tmp_path: Path):
    """At each prefix length all labels are the same, so balancing leaves none."""
    rows = solutions()
    for row in rows:
        if row["answer_correct"]:
            row["steps"] = row["steps"][:1]
        else:
            row["first_error"] = 1
    config = prepared(tmp_path, rows)
    with pytest.raises(InputError, match=r"task\.where: 0 step labels of train are left, all of one class \(labels\.b"):
        judged_traces.labels(context_of(tmp_path, "labels", config))


def test_a_base_model_that_is_given_is_taken(tmp_path: Path):
    shipped = taking_base.folder_of(ConfigDict({"base": {"path": ""}}))
    config = config_of(write(tmp_path / "rows.jsonl", solutions()), f"--config.base.path={shipped}")
    judged_traces.problems(context_of(tmp_path, "problems", config))
    counts = judged_traces.base(context_of(tmp_path, "base", config))
    assert counts["vocabulary"] == pretrained.reopen(tmp_path / "base").vocab_size
    artifacts.read_model(tmp_path / "base", "float32")
    assert shipped / artifacts.MODEL in judged_traces.base_files(config)
    assert judged_traces.base_files(config_of(tmp_path / "rows.jsonl")) == []


def test_a_base_model_that_is_made_for_less_is_refused(tmp_path: Path):
    """Before anything is trained: rows that are longer than it reads, and solutions that it will be measured on."""
    folder = tmp_path / "llama"
    folders.write(folder, raw := folders.config("llama2") | {"vocab_size": 640}, folders.weights(raw))
    vocabularies.make("byte_level", folder)
    long = solutions()
    for row in long:
        row["steps"][0] += " and more" * 60
    rows, given = write(tmp_path / "rows.jsonl", long), f"--config.base.path={folder}"
    for run, sizes, message in (
        ("a", (), r"orm\.train\.row_length=256: the base model was made for 128 tokens; lower it"),
        ("b", ("orm", "sorm"), r"solutions have more than the 128 tokens that the model was made for"),
    ):
        config = config_of(rows, given, *(f"--config.{name}.train.row_length=128" for name in sizes))
        judged_traces.problems(context_of(tmp_path / run, "problems", config))
        with pytest.raises(InputError, match=message):
            judged_traces.base(context_of(tmp_path / run, "base", config))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "--config.value.init=student",
            r"value\.init='student': expected base; the recipe traces_value has",
        ),
        ("--config.vocabulary=50", r"vocabulary=50: no tokenizer can be made with it"),
        ("--config.base.path=nowhere", r"base\.path=nowhere: no such folder"),
        ("--config.base.adapter=nowhere", r"base\.adapter is given, but no model that it is for"),
        ("--config.pretrain.train.row_length=8", r"base: all \d+ examples are longer than a row of 8 tokens"),
    ],
)
def test_a_base_that_cannot_be_made_is_refused(tmp_path: Path, override: str, message: str):
    config = config_of(write(tmp_path / "rows.jsonl", solutions()), override)
    judged_traces.problems(context_of(tmp_path, "problems", config))
    with pytest.raises(InputError, match=message):
        judged_traces.base(context_of(tmp_path, "base", config))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A whole run on the made-up solutions; its folder, with the file beside it."""
    folder = tmp_path_factory.mktemp("judged")
    config = config_of(write(folder / "rows.jsonl", solutions()))
    with jax.numpy_dtype_promotion("standard"):  # Optax adds floats to integers
        pipeline.run(config, folder / "run", stages.of(config))
    yield folder / "run"


def test_every_stage_leaves_what_it_says(finished: Path):
    config = config_of(finished.parent / "rows.jsonl")
    assert {s.state for s in pipeline.states(config, finished, stages.of(config))} == {"done"}
    counts = {s.name: files.read_json(finished / s.name / files.MANIFEST)["counts"] for s in stages.of(config)}
    sizes = Counter(judged.split_of(row["question"]) for row in solutions())
    for split, size in sizes.items():
        found = {key: counts["problems"][f"{split}_{key}"] for key in ("when", "where", "questions")}
        assert found == {"when": size, "where": size, "questions": size / 2}
    assert counts["orm"]["examples"] == sizes["train"]
    assert sum(counts["values"].values()) == 2 * (sizes["dev"] + sizes["test"])
    for kind in judged.KINDS:
        rows = files.read_table(finished / "problems" / f"{kind}-test.parquet", Judged)
        scored = files.read_table(finished / "values" / f"{kind}-test.parquet", Scored)
        assert [(s.id, len(s.values)) for s in scored] == [(row.id, len(row.steps)) for row in rows]


def test_no_question_is_in_two_splits(finished: Path):
    found = {
        split: {p.question for p in files.read_table(finished / "problems" / f"{split}.parquet", Problem)}
        for split in artifacts.SPLITS
    }
    assert sum(map(len, found.values())) == len(set.union(*found.values())) == COUNT


def test_the_figures_are_written_and_printed(finished: Path, capsys: pytest.CaptureFixture[str]):
    metrics = files.read_json(finished / reports.MEASURES / "metrics.json")
    test = sum(judged.split_of(row["question"]) == "test" for row in solutions())
    when, where = metrics["when"], metrics["where"]
    assert [row["name"] for row in when["rows"]] == ["A", "B", "within a question"]
    assert (when["dev"], when["measured"], where["dev"], where["measured"]) == (0, test, 0, test)
    assert where["random_step"] == pytest.approx(1 / 3)
    assert all(metrics["definitions"].values())
    capsys.readouterr()
    assert cli.main(["report", str(finished)]) == 0
    out = capsys.readouterr().out
    for shown in (
        "\nORM, on the questions of test",
        "\nSORM, on the questions of test",
        "the generator that was right more often on train: AUROC",
        f"gave the best F1 on dev; these figures are on {test} solutions",
        "The figures: ",
    ):
        assert shown in out
    assert cli.main(["report", str(finished), str(finished)]) == 2
    assert "a run of the recipe traces_value; only runs of glore can be pooled" in capsys.readouterr().err


def test_the_command_train_goes_on_where_the_run_is(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)
    source = finished.parent / "rows.jsonl"
    words = [
        f"--config={CONFIG}:smoke",
        f"--workdir={finished}",
        *(f"--config.task.{k}={source}" for k in judged.KINDS),
    ]
    assert cli.main(["train", *words]) == 0
    out = capsys.readouterr().out
    assert "stages are done; this run took" not in out  # nothing was left to do
    assert "The figures: " in out
    assert cli.main(["train", *words, "--config.task.when="]) == 2  # another configuration's folder
    assert "task.when" in capsys.readouterr().err


def test_values_that_are_read_are_not_read_again(finished: Path, monkeypatch: pytest.MonkeyPatch):
    """A run that is cut in the stage `values` keeps its finished tables, and ends like the uncut one."""
    config = config_of(finished.parent / "rows.jsonl")
    kept = {p.name: p.read_bytes() for p in (finished / "values").glob("*.parquet")}
    read, calls = reward_models.values, []

    def cut(*given: Any) -> Any:
        calls.append(given)
        if len(calls) == 3:
            raise InputError("cut")
        return read(*given)

    monkeypatch.setattr(reward_models, "values", cut)
    with pytest.raises(InputError, match="cut"):
        pipeline.run(config, finished, stages.of(config), start_from="values")
    pipeline.run(config, finished, stages.of(config), start_from="values")
    assert len(calls) == 3 + 4 - 2
    assert {p.name: p.read_bytes() for p in (finished / "values").glob("*.parquet")} == kept


def test_solutions_that_are_too_long_lose_their_last_steps(finished: Path, tmp_path: Path):
    """In the manner of every value model: the labels that went are counted."""
    tokenizer = pretrained.reopen(finished / "base")
    questions = {p.id: p for p in files.read_table(finished / "problems" / "train.parquet", Problem)}
    found = files.read_table(finished / "traces" / "traces.parquet", Solution)
    labels = reward_models.orm_labels(found)
    lengths = [len(tokenizer.encode(questions[s.problem_id].question)) + 1 + s.step_ends[1] for s in found]
    short, kept, gone = reward_models.truncate(tokenizer, questions, found, labels, max(lengths))
    assert gone > 0
    assert {s.num_steps for s in short} <= {2, 3}
    assert [len(entry.labels) for entry in kept] == [s.num_steps for s in short]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_published_traces_go_all_the_way(tmp_path: Path):
    folder = public_data.folder("traces")
    given = [f"--config.task.{kind}={folder / kind}.jsonl.gz" for kind in judged.KINDS]
    done = smoke_run.glore("train", f"--config={CONFIG}:smoke", f"--workdir={tmp_path / 'run'}", *given)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    metrics = files.read_json(tmp_path / "run" / reports.MEASURES / "metrics.json")
    assert len(metrics["when"]["rows"]) == 19  # generators, and within a question
    assert metrics["when"]["solutions"] == 4779
    assert metrics["generator"]["low"] > 0.6  # who wrote a solution says much of whether it is right
    assert 0.1 < metrics["where"]["random_step"] < 0.25
