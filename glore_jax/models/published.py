"""Sizes of published models, so that a run can be planned before their folder is there.

They are those of each model's `config.json`, and the number of its tokenizer's ids; embeddings may have more rows.
"""

from __future__ import annotations

from glore_jax.errors import InputError
from glore_jax.models import families
from glore_jax.models.decoder import DecoderConfig


def _model(
    family: str,
    tokens: int,
    rows: int,
    d_model: int,
    layers: int,
    heads: int,
    kv_heads: int,
    d_ff: int,
    **others: object,
) -> tuple[int, families.Json]:
    """The number of ids, and what of `config.json` decides sizes."""
    raw: families.Json = {"architectures": [family + families.CAUSAL], "vocab_size": rows, "hidden_size": d_model}
    raw |= {"num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads}
    return tokens, raw | {"intermediate_size": d_ff} | others


_GEMMA = {"hidden_activation": families.GELU, "sliding_window": 1024, "head_dim": 256}
MODELS = {
    "Llama-2-7b-hf": _model("Llama", 32_000, 32_000, 4096, 32, 32, 32, 11_008),
    "Llama-2-13b-hf": _model("Llama", 32_000, 32_000, 5120, 40, 40, 40, 13_824),
    "Llama-2-70b-hf": _model("Llama", 32_000, 32_000, 8192, 80, 64, 8, 28_672),
    "Meta-Llama-3-8B": _model("Llama", 128_256, 128_256, 4096, 32, 32, 8, 14_336, rope_theta=500_000.0),
    "Mistral-7B-v0.1": _model("Mistral", 32_000, 32_000, 4096, 32, 32, 8, 14_336, sliding_window=4096),
    "Qwen2.5-7B": _model("Qwen2", 151_665, 152_064, 3584, 28, 28, 4, 18_944, rope_theta=1_000_000.0),
    "Qwen3-8B-Base": _model("Qwen3", 151_669, 151_936, 4096, 36, 32, 8, 12_288, head_dim=128, rope_theta=1_000_000.0),
    "gemma-3-12b-text": _model("Gemma3", 262_145, 262_208, 3840, 48, 16, 8, 15_360, **_GEMMA),
}


def describe(name: str) -> tuple[DecoderConfig, int]:
    """A published model and the number of its tokenizer's ids.

    Args:
      name: of its folder, as it is published.

    Raises:
      InputError: no such model is known here.
    """
    if name not in MODELS:
        raise InputError(
            f"no folder of that name, and the sizes of {name!r} are not known; known are those of {', '.join(MODELS)}"
        )
    tokens, raw = MODELS[name]
    problems: list[str] = []
    config, _ = families.read(raw, problems)
    assert config is not None, problems
    return config, tokens
