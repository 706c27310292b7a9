"""LoRA adapters against peft: both ways, merged and not. Needs the extra `parity`."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import checkpoints
import jax
import make_golden
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason="the extra `parity` is not installed")
    peft = pytest.importorskip("peft", reason="the extra `parity` is not installed")

from glore_jax.models import adapters, huggingface, lora
from glore_jax.models.lora import LoraConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
TOKENS = checkpoints.padded([prompt for prompt in checkpoints.prompts() if len(prompt) > 20])
EVERYWHERE = tuple(name for name in lora.LINEAR if name != "unembedding")


@functools.partial(jax.jit, static_argnums=0)
def call(model: Any, params: Any) -> jax.Array:
    return model.apply({"params": params}, TOKENS)


def assert_near(found: Any, expected: np.ndarray) -> None:
    assert np.abs(np.asarray(found) - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize(("family", "targets"), [("llama3", lora.LINEAR), ("qwen2", EVERYWHERE), ("gemma3", ("wq",))])
def test_peft_reads_our_adapter(family: str, targets: tuple[str, ...], tmp_path: Path):
    given = checkpoints.write(tmp_path / "given", checkpoints.config(family))
    model, params = huggingface.load(given)
    config = LoraConfig(rank=3, alpha=4.0, targets=targets)
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: lora.init(jax.random.key(0), params, config))
    adapter = jax.tree.map(lambda x: (0.2 * rng.normal(size=x.shape)).astype(np.float32), shapes)
    adapters.save(config, adapter, tmp_path / "adapter", model)
    merged = jax.jit(lora.merge, static_argnums=2)(params, adapter, config)
    ours = call(model, merged)

    base = make_golden.reference(given)
    plain = make_golden.reference_logits(base, TOKENS)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    assert_near(ours, make_golden.reference_logits(theirs, TOKENS))
    assert np.abs(np.asarray(ours) - plain).max() > 0.01 * np.abs(plain).max()

    huggingface.save(model, merged, tmp_path / "merged")
    assert_near(ours, make_golden.reference_logits(make_golden.reference(tmp_path / "merged"), TOKENS))


@pytest.mark.parametrize("rslora", [False, True])
def test_we_read_the_adapter_of_peft(rslora: bool, tmp_path: Path):
    given = checkpoints.write(tmp_path / "given", checkpoints.config("mistral"))
    settings = peft.LoraConfig(
        r=5, lora_alpha=7, target_modules=["q_proj", "down_proj", "lm_head"], use_rslora=rslora, task_type="CAUSAL_LM"
    )
    torch.manual_seed(0)
    theirs = peft.get_peft_model(make_golden.reference(given), settings).eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.2)
    theirs.save_pretrained(tmp_path / "adapter")
    model, params = huggingface.load(given)
    config, adapter = adapters.load(tmp_path / "adapter", model)
    assert (config.rank, config.targets) == (5, ("wq", "down", "unembedding"))
    merged = jax.jit(lora.merge, static_argnums=2)(params, adapter, config)
    assert_near(call(model, merged), make_golden.reference_logits(theirs, TOKENS))
