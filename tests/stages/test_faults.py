"""Students and data that cannot work, on a tiny random model: each is refused with what to change."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import handmade
import jax
import pytest
import tiny
from ml_collections import ConfigDict

from glore_jax import cli, configuration, files, pipeline
from glore_jax.errors import InputError
from glore_jax.models import value_head
from glore_jax.models.decoder import DecoderConfig
from glore_jax.pipeline import Stage, StageContext
from glore_jax.records import Case, Problem, Solution, StepLabels
from glore_jax.stages import artifacts, recipes, rollout_parts, step_labels, walk
from glore_jax.stages.rollout_parts import RolloutParts
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.training import checkpoints

ROOT = Path(__file__).parents[2]
PROBLEMS = [make_problem(0, "train", i, handmade.EVEN_WEIGHTS) for i in range(4)]
STAGES = {stage.name: stage for stage in recipes.GLORE}

pytestmark = pytest.mark.usefixtures("standard_promotion")


def small_config(**changes: Any) -> ConfigDict:
    """The smoke configuration with everything a few."""
    config = configuration.load(f"{ROOT / 'configs' / 'arithmetic.py'}:smoke")
    with config.unlocked():
        config.task.update({"train": 4, "dev": 2, "test": 2})
        config.sampling.update({"slots": 8, "sources": 4, "buckets": (320, 576), "max_new_tokens": 24})
        for settings in (config.sft.train, config.expert_iteration.train, config.orm.train, config.sorm.train):
            settings.update({"steps": 1, "rows": 2, "optimizer": "adamw"})
        for key, value in changes.items():
            config.update_from_flattened_dict({key.replace("__", "."): value})
    return config


def write_base(folder: Path) -> None:
    """A base model that knows nothing."""
    tokenizer = handmade.tokenizer()
    model, params = tiny.random_decoder(tokenizer.vocab_size)
    config = {name: getattr(model.config, name) for name in DecoderConfig.__dataclass_fields__}
    checkpoints.save_model(folder / artifacts.MODEL, {"decoder": params}, config)
    tokenizer.save(folder)


def given(name: str, inputs: Sequence[str], write: Callable[[Path], None]) -> Stage:
    """A stage that writes what a test hands in."""

    def run(context: StageContext) -> dict[str, Any]:
        write(context.folder)
        return {"given": True}

    return Stage(name, tuple(inputs), run, "handed in", ())


def write_problems(folder: Path, rows: Sequence[Problem] = PROBLEMS) -> None:
    for split in artifacts.SPLITS:
        files.write_table(folder / f"{split}.parquet", rows, Problem)


def write_hopeless_problems(folder: Path) -> None:
    """Nobody finds these answers, not even by chance."""
    write_problems(folder, [dataclasses.replace(p, answer="987654321") for p in PROBLEMS])


def gold(problem: Problem, right: bool = True, sample: int = 0) -> Solution:
    """The worked solution, or the same with a wrong answer."""
    lines = problem.solution.split("\n")
    if not right:
        lines = [*lines[:-1], "#### 999"]
    return handmade.solution(lines, right, f"{problem.id}/{sample}", problem.id)


def run_labels(workdir: Path, traces: list[Solution], **changes: Any) -> Path:
    """The stage `labels` of a student that knows nothing, on traces that are handed in."""
    chain = [
        given("problems", (), write_problems),
        given("base", (), write_base),
        given("expert_iteration", (), write_base),
        given("traces", (), lambda folder: files.write_table(folder / "traces.parquet", traces, Solution)),
        STAGES["labels"],
    ]
    # Most of the traces handed in are of problems with one trace alone.
    pipeline.run(small_config(labels__solved_only=False, **changes), workdir, chain)
    return workdir / "labels"


def test_a_student_that_is_never_right_is_refused(tmp_path: Path):
    write_base(tmp_path / "base")
    config = small_config(base__path=str(tmp_path / "base"))
    chain = [given("problems", (), write_hopeless_problems), *recipes.GLORE[1:4]]
    count = 4 * config.expert_iteration.samples
    with pytest.raises(InputError, match=rf"pass rate 0 in {count} samples; .*base\.path") as error:
        pipeline.run(config, tmp_path / "run", chain)
    assert "task.step_weights" in str(error.value)
    assert (tmp_path / "run" / "sft" / "model.safetensors").exists()  # what was finished is kept


def test_traces_that_are_never_right_are_refused(tmp_path: Path):
    chain = [
        given("problems", (), write_hopeless_problems),
        given("base", (), write_base),
        given("expert_iteration", (), write_base),
        STAGES["traces"],
    ]
    config = small_config()
    count = 4 * config.traces.per_problem
    with pytest.raises(InputError, match=f"never right on train: pass rate 0 in {count} traces; "):
        pipeline.run(config, tmp_path, chain)


def test_labels_of_one_class_are_refused_with_their_rates(tmp_path: Path):
    traces = [gold(p, right=False) for p in PROBLEMS]
    lengths = [t.num_steps for t in traces]
    with pytest.raises(
        InputError, match=r"all \d+ step labels are negative \(positive by prefix length: 1: 0/4"
    ) as error:
        run_labels(tmp_path, traces)
    assert f"all {sum(lengths)} step labels" in str(error.value)
    assert f"{max(lengths)}: 0/{lengths.count(max(lengths))}" in str(error.value)
    with pytest.raises(InputError, match="step labels are positive"):
        run_labels(tmp_path / "right", [gold(p) for p in PROBLEMS])


def test_no_labels_at_all_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"no trace to label: .* raise labels\.problems"):
        run_labels(tmp_path, [handmade.solution(["#### 1"], False, "a/0", PROBLEMS[0].id)])


def test_labels_that_balance_to_nothing_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Both classes are there, but at no prefix length are both."""
    long = max(PROBLEMS, key=lambda p: len(p.solution.split("\n")))
    trace = gold(long, right=False)
    labels = [StepLabels(trace.id, (1,) * (trace.num_steps - 1) + (0,))]
    monkeypatch.setattr(step_labels.labelling, "make", lambda *_: labels)
    with pytest.raises(InputError, match=r"no prefix length has both .*labels\.balance"):
        run_labels(tmp_path, [trace])


def test_labels_of_both_classes_are_made(tmp_path: Path):
    traces = [gold(p, right=i % 2 == 0) for i, p in enumerate(PROBLEMS)]
    folder = run_labels(tmp_path, traces)
    made = files.read_table(folder / "labels.parquet", StepLabels)
    assert [set(entry.labels) for entry in made] == [{1}, {0}, {1}, {0}]
    balanced = files.read_table(folder / "balanced.parquet", StepLabels)
    kept = [x for entry in balanced for x in entry.labels if x >= 0]
    assert sum(kept) * 2 == len(kept) > 0


def test_rollouts_cut_between_two_parts_end_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rollout_parts, "TRACES_A_PART", 1)
    traces = [gold(p, right=i == 0) for i, p in enumerate(PROBLEMS)]
    uncut = run_labels(tmp_path / "uncut", traces)
    assert len(list((uncut / "rollouts").iterdir())) == 3
    whole, calls = step_labels.verifying.collect, []

    def cut(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(*arguments, **options)

    monkeypatch.setattr(step_labels.verifying, "collect", cut)
    with pytest.raises(KeyboardInterrupt):
        run_labels(tmp_path / "cut", traces)
    resumed = run_labels(tmp_path / "cut", traces)
    assert len(calls) == 4  # one part, the cut, and the two that were left
    names = [str(p.relative_to(uncut)) for p in uncut.rglob("*.parquet")]
    assert all((resumed / name).read_bytes() == (uncut / name).read_bytes() for name in names)


def test_the_boundary_has_more_rollouts(tmp_path: Path):
    """A student that knows nothing mends nothing, so of each wrong trace the first prefix has them."""
    traces = [gold(p, right=i == 0) for i, p in enumerate(PROBLEMS)]
    changes = {"labels__rollouts": 2, "labels__boundary_rollouts": 3}
    uncut = run_labels(tmp_path / "uncut", traces, **changes)
    for name, mine in RolloutParts(uncut).items():
        steps = next(t.num_steps for t in traces if t.id == name)
        places = [(r.prefix, r.sample) for r in mine]
        assert sorted(places) == sorted([(i, k) for i in range(1, steps) for k in range(5 if i == 1 else 2)])


def test_a_search_that_mends_nothing_goes_all_the_way(tmp_path: Path):
    traces = [gold(p, right=i == 0) for i, p in enumerate(PROBLEMS)]
    everywhere = run_labels(tmp_path / "all", traces)
    backward = run_labels(tmp_path / "backward", traces, labels__search="backward")
    for name in ("labels.parquet", "balanced.parquet", "rollouts/part-00000.parquet"):
        assert (backward / name).read_bytes() == (everywhere / name).read_bytes()
    audits = [files.read_json(folder / "audit.json") for folder in (everywhere, backward)]
    assert audits[0]["sorm_label_accuracy"] == audits[1]["sorm_label_accuracy"]
    own, all_ = ({row["name"]: row for row in audit["ablation"]} for audit in audits[::-1])
    assert "raw any-of-K" in own and "strict consistency" not in own and own.items() <= all_.items()


def test_a_question_longer_than_the_context_is_named(tmp_path: Path):
    write_base(tmp_path / "base")
    config = small_config(base__path=str(tmp_path / "base"), sampling__buckets=(96,))
    with pytest.raises(
        InputError, match=r"\d questions are longer than the \d+ tokens that fit: train-\d \(\d+\)"
    ) as error:
        pipeline.run(config, tmp_path / "run", recipes.GLORE[:2])
    assert "sampling.buckets" in str(error.value)


def test_rows_too_short_for_every_example_are_named(tmp_path: Path):
    write_base(tmp_path / "base")
    config = small_config(base__path=str(tmp_path / "base"), sft__train__row_length=16)
    with pytest.raises(InputError, match=r"all 4 examples are longer than a row of 16 tokens .*train\.row_length"):
        pipeline.run(config, tmp_path / "run", recipes.GLORE[:3])


def test_a_base_model_that_is_not_there_is_named(tmp_path: Path):
    config = small_config(base__path=str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match=r"base\.path=.*nowhere: no such folder"):
        pipeline.run(config, tmp_path / "run", recipes.GLORE[:2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config={}/arithmetic.py:smoke", "--only=sormm"], "--only=sormm: no such stage; did you mean sorm"),
        (["--config={}/arithmetic.py:smoke", "--from=walk"], "--from=walk: no such stage"),
        (["--config={}/arithmetik.py"], "did you mean arithmetic.py"),
        (["--config={}/arithmetic.py:smok"], "no variant 'smok'; there are :smoke and :full"),
        (["--config={}/arithmetic.py", "--config.recipe=glor"], "no such recipe; did you mean glore?"),
        (["--config={}/arithmetic.py", "--config.labels.rolouts=3"], "did you mean labels.rollouts"),
        (["--config={}/jsonl.py"], "task.train"),
    ],
)
def test_what_does_not_exist_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
):
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)
    words = [word.format(ROOT / "configs") for word in words]
    assert cli.main(["run", f"--workdir={tmp_path / 'run'}", *words]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error: ")
    assert message in error


def test_a_draft_too_long_to_rewrite_stands(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def write_value_model(folder: Path) -> None:
        write_base(folder)
        params, config = checkpoints.load_model(folder / artifacts.MODEL)
        head = value_head.init(jax.random.key(0), config["d_model"])
        checkpoints.save_model(folder / artifacts.MODEL, params | {"value_head": head}, config)

    names = ("base", "expert_iteration", *recipes._REWRITERS)
    chain = [
        given("problems", (), lambda folder: write_problems(folder, PROBLEMS[:1])),
        *(given(name, (), write_base) for name in names),
        *(given(name, (), write_value_model) for name in walk.VALUE_MODELS),
        STAGES["tuning"],
    ]
    prompt = len(handmade.tokenizer().encode(PROBLEMS[0].question)) + 2  # fits, and nothing more does
    pipeline.run(small_config(sampling__buckets=(prompt,)), tmp_path, chain)
    (case,) = files.read_table(tmp_path / "tuning" / "cases.parquet", Case)
    assert set(case.refinements) == {"global", "local"} and case.sft is None
    assert all(rewrite == case.draft for rewrite in case.refinements.values())
    assert "global refinements: 1 drafts stand, being longer than sampling.buckets" in capsys.readouterr().out
