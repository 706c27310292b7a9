"""The experiment files: each loads, each key reaches its reader, no default moves unnoticed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import golden
import pytest

from glore_jax import configuration, stages, tasks
from glore_jax.errors import InputError
from glore_jax.stages import config_keys
from glore_jax.text import formats

CONFIGS = golden.ROOT / "configs"
VARIANTS = {
    "arithmetic.py": ("smoke", "full"),
    "arithmetic_base.py": ("smoke",),
    "gsm8k_tiny.py": (),
    "jsonl.py": ("smoke",),
    "label.py": (),
    "traces_value.py": ("smoke",),
    **dict.fromkeys(golden.PUBLISHED, ("lora", "pod")),
}
SPECS = [f"{name}{variant}" for name, rest in VARIANTS.items() for variant in ("", *(f":{v}" for v in rest))]
READ_BY_THE_COMMAND_LINE = {"recipe", *configuration.RUNTIME}
READ_BY_EVERY_STAGE = {"seed"}


def test_every_file_and_variant_is_listed_here():
    assert sorted(path.name for path in CONFIGS.glob("*.py")) == sorted(VARIANTS)
    for name, variants in VARIANTS.items():
        with pytest.raises(InputError) as error:
            configuration.load(f"{CONFIGS / name}:no_such")
        assert set(re.findall(r":(\w+)", str(error.value).partition("there")[2])) == set(variants)


@pytest.mark.parametrize("spec", SPECS)
def test_every_key_reaches_a_reader(spec: str):
    config = configuration.load(str(CONFIGS / spec))
    declared = {key for stage in stages.of(config) for key in stage.config_keys}
    top = {key.partition(".")[0] for key in declared}
    assert set(config.keys()) - top == READ_BY_THE_COMMAND_LINE | READ_BY_EVERY_STAGE
    for stage in stages.of(config):
        configuration.select(config, stage.config_keys)  # no stage asks for a key that the file lacks

    source = "\n".join(path.read_text(encoding="utf-8") for path in (golden.ROOT / "glore_jax").rglob("*.py"))
    names = {part for key in configuration.leaves(config) for part in key.split(".")}
    unread = [name for name in sorted(names) if not re.search(rf"""(\.|["']){name}\b""", source)]
    assert not unread, f"keys that nothing in glore_jax reads: {unread}; remove them or read them"


@pytest.mark.parametrize("spec", SPECS)
def test_rows_split_evenly_over_the_devices(spec: str):
    config = configuration.load(str(CONFIGS / spec))
    sizes = {k: v for k, v in configuration.leaves(config).items() if re.search(r"(^|\.)(rows|slots|sources)$", k)}
    assert sizes
    devices = config.devices or 8  # 0 leaves it to the machine, and eight is as many as one has
    assert not {k: v for k, v in sizes.items() if v % devices}


@pytest.mark.parametrize("spec", golden.PUBLISHED)
def test_a_model_or_task_names_only_what_differs(spec: str):
    moved = configuration.differences(golden.values("gsm8k.py"), golden.values(spec))
    keys = {key for key, _, _ in moved}
    allowed = {"base.path"} | {f"{name}.train.rows" for name in ("sft", "expert_iteration", "orm", "sorm", "refiner")}
    if spec.startswith("svamp"):
        allowed |= {"task.name", "sampling.buckets", "sampling.max_new_tokens"}
        allowed |= {f"{name}.train.row_length" for name in ("sft", "expert_iteration", "orm", "sorm", "refiner")}
    assert keys <= allowed


@pytest.mark.parametrize("spec", golden.PINNED)
def test_defaults_have_not_moved(spec: str):
    pinned = json.loads(golden.PATH.read_text(encoding="utf-8"))
    assert set(pinned) == set(golden.PINNED)
    moved = configuration.differences(pinned[spec], golden.values(spec))
    lines = [f"  {key}: {was!r} pinned, {now!r} in the file" for key, was, now in moved]
    assert not moved, "\n".join([f"configs/{spec} has other values than its pinned ones:", *lines, golden.RENEW])


def test_the_keys_that_are_looked_for_are_those_of_the_files():
    assert json.loads(golden.KEYS.read_text(encoding="utf-8")) == golden.shipped_keys(), golden.RENEW


@pytest.mark.parametrize(
    ("spec", "key", "file"),
    [
        ("arithmetic.py:smoke", "base.adapter", "arithmetic.py"),
        ("gsm8k_llama2_7b.py", "sorm.target", "gsm8k.py"),
        ("jsonl.py", "task.dev", "jsonl.py"),
        ("label.py", "labels.search", "label.py"),
        ("traces_value.py", "value.language", "traces_value.py"),
        ("arithmetic_base.py", "model.d_model", "arithmetic_base.py"),
    ],
)
def test_a_file_that_lacks_a_key_is_refused_with_its_name(spec: str, key: str, file: str):
    config = configuration.load(str(CONFIGS / spec)).unlock()
    group, leaf = key.split(".")
    del config[group][leaf]
    with pytest.raises(InputError, match=rf"lacks {key}, which its stages read; configs/{file} has it"):
        stages.check_settings(config)


@pytest.mark.parametrize("spec", SPECS)
def test_every_file_has_the_keys_that_are_looked_for(spec: str):
    config_keys.check(configuration.load(str(CONFIGS / spec)))


def test_a_lacking_group_and_several_keys_are_all_named():
    config = configuration.load(str(CONFIGS / "arithmetic.py")).unlock()
    del config.traces, config.sft.train.lora
    del config.seed, config.devices, config.sharding  # there are values without these
    with pytest.raises(InputError) as error:
        config_keys.check(config)
    lacking = "sft.train.lora.alpha, sft.train.lora.layers, sft.train.lora.rank, traces.per_problem, which"
    assert f"the configuration lacks {lacking}" in str(error.value)
    config.task.name = "mine"
    config_keys.check(config)  # of an unknown task nothing is known; the task says so itself


def test_lora_is_a_variant_of_every_published_model():
    for name in golden.PUBLISHED:
        moved = configuration.differences(golden.values(name), golden.values(f"{name}:lora"))
        keys = {f"{group}.train.{key}" for group in ("sft", "expert_iteration", "orm", "sorm", "refiner")
                for key in ("learning_rate", "lora.rank", "lora.alpha", "lora.layers")}  # fmt: skip
        assert {key for key, _, _ in moved} == keys


def test_pod_is_a_variant_that_changes_no_result():
    for name in golden.PUBLISHED:
        moved = configuration.differences(golden.values(name), golden.values(f"{name}:pod"))
        assert {key for key, _, _ in moved} == {f"sharding.{key}" for key in ("preset", "tensor", "sampling", "rules")}


def test_answers_in_latex_are_read_and_compared(tmp_path: Path):
    found = [(rf"\frac{{{i}}}{{2}}", f"#### {i / 2}") for i in range(1, 61)]
    rows = [{"question": f"Half of {i}?", "answer": a, "solution": s} for i, (a, s) in enumerate(found, 1)]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    given = [f"--config.task.train={path}", "--config.task.answers=latex"]
    config = configuration.load(f"{CONFIGS / 'jsonl.py'}:smoke", given)
    stages.check_settings(config)
    splits = tasks.load(config.task)
    problems = [*splits.train, *splits.dev, *splits.test]
    assert len(problems) == 60
    assert all(formats.is_right(problem.solution, problem.answer) for problem in problems)
    assert not any(formats.is_right("#### 2", p.answer) for p in problems if p.answer != r"\(\frac{4}{2}\)")


def test_your_own_problems_are_read(tmp_path: Path):
    rows = [{"question": f"What is {i} and 1?", "answer": str(i + 1)} for i in range(60)]
    path = tmp_path / "problems.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    config = configuration.load(str(CONFIGS / "jsonl.py"), [f"--config.task.train={path}"])
    splits = tasks.load(config.task)
    assert len(splits.train) + len(splits.dev) + len(splits.test) == 60
    with pytest.raises(InputError, match=r"task\.train is empty"):
        tasks.load(configuration.load(str(CONFIGS / "jsonl.py")).task)
