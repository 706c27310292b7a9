"""What the configurations say of published models, worked out from the sizes in their `config.json`."""

from __future__ import annotations

import ast
import re
from typing import Any

import golden
import jax
import pytest

from glore_jax import configuration
from glore_jax.models import decoder, families
from glore_jax.models.decoder import Decoder


def sizes(vocabulary: int, d_model: int, layers: int, heads: int, kv_heads: int, d_ff: int) -> dict[str, Any]:
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    values = (vocabulary, d_model, layers, heads, kv_heads)
    return dict(zip(names, values, strict=True)) | {"intermediate_size": d_ff}


GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "sliding_window": 1024, "head_dim": 256}
PUBLISHED = {
    "llama2_7b": ("Llama", sizes(32_000, 4096, 32, 32, 32, 11_008)),
    "llama2_13b": ("Llama", sizes(32_000, 5120, 40, 40, 40, 13_824)),
    "llama3_8b": ("Llama", sizes(128_256, 4096, 32, 32, 8, 14_336)),
    "qwen2_5_7b": ("Qwen2", sizes(152_064, 3584, 28, 28, 4, 18_944)),
    "qwen3_8b": ("Qwen3", sizes(151_936, 4096, 36, 32, 8, 12_288) | {"head_dim": 128}),
    "gemma3_12b": ("Gemma3", sizes(262_208, 3840, 48, 16, 8, 15_360) | GEMMA),
    "mistral_7b": ("Mistral", sizes(32_000, 4096, 32, 32, 8, 14_336)),
}


@pytest.mark.parametrize("model", golden.MODELS)
def test_the_docstring_has_the_right_figures(model: str):
    family, raw = PUBLISHED[model]
    problems: list[str] = []
    config, _ = families.read(raw | {"architectures": [f"{family}ForCausalLM"]}, problems)
    assert config is not None, problems
    shapes = jax.eval_shape(lambda key: decoder.init(Decoder(config), key), jax.random.key(0))
    parameters = sum(x.size for x in jax.tree.leaves(shapes))

    path = golden.ROOT / "configs" / f"gsm8k_{model}.py"
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"{parameters / 1e9:.1f} billion parameters, a vocabulary of {config.vocab_size:,}" in doc
    # float32: parameters, gradients, and two moments of the optimizer
    assert re.search(rf"memory +{round(16 * parameters / 2**30)} GiB on every device", doc)
    assert configuration.load(str(path)).refiner.prefix_lm is config.prefix_lm is False
