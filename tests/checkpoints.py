"""A tiny random checkpoint of each family, as a Hugging Face folder, the same on every machine.

The settings are those of the families' published `config.json` files, at small sizes: windows shorter than the
sequences, soft caps near the scores, rotary positions that are slowed within them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from glore_jax.models import tensors

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 48, "head_dim": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 128,
}  # fmt: skip
SILU = {"hidden_act": "silu", "tie_word_embeddings": False, "rope_theta": 10_000.0}
GEMMA = {"hidden_activation": "gelu_pytorch_tanh", "tie_word_embeddings": True, "attention_bias": False}
SLOW = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
SLOW |= {"rope_type": "llama3"}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama2": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SILU, "num_key_value_heads": 4},
    "llama3": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SILU, "rope_theta": 500_000.0},
    "llama31": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **SILU, "rope_scaling": SLOW},
    "llama32": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", **SILU, "tie_word_embeddings": True,
        "rope_scaling": SLOW | {"factor": 32.0},
    },
    "llama_linear": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", **SILU,
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", **SILU, "sliding_window": 5},
    "qwen2": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **SILU, "tie_word_embeddings": True,
        "use_sliding_window": False, "sliding_window": 5,
    },
    "qwen25_windows": {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", **SILU, "use_sliding_window": True,
        "sliding_window": 5, "max_window_layers": 1,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **SILU, "head_dim": 16},
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"], "model_type": "gemma2", **GEMMA, "rope_theta": 10_000.0,
        "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 12,
        "sliding_window": 5, "num_hidden_layers": 3,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text", **GEMMA, "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0, "query_pre_attn_scalar": 12, "sliding_window": 5,
        "sliding_window_pattern": 6, "num_hidden_layers": 7, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
    },
}  # fmt: skip


def config(family: str) -> dict[str, Any]:
    return SIZES | FAMILIES[family]


def shapes(raw: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """What transformers calls the tensors of such a model, and their shapes."""
    D, F, H = raw["hidden_size"], raw["intermediate_size"], raw["head_dim"]
    N, K = raw["num_attention_heads"] * H, raw["num_key_value_heads"] * H
    layer = {"self_attn.q_proj": (N, D), "self_attn.k_proj": (K, D), "self_attn.v_proj": (K, D)}
    layer |= {"self_attn.o_proj": (D, N), "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
    layer |= {"input_layernorm": (D,), "post_attention_layernorm": (D,)}
    kind = raw["model_type"]
    if kind.startswith("gemma"):
        layer |= {"pre_feedforward_layernorm": (D,), "post_feedforward_layernorm": (D,)}
    if kind in ("qwen3", "gemma3_text"):
        layer |= {"self_attn.q_norm": (H,), "self_attn.k_norm": (H,)}
    found = {f"{name}.weight": shape for name, shape in layer.items()}
    if kind == "qwen2":
        found |= {f"self_attn.{name}_proj.bias": (size,) for name, size in (("q", N), ("k", K), ("v", K))}
    whole = {f"model.layers.{i}.{n}": s for i in range(raw["num_hidden_layers"]) for n, s in found.items()}
    whole |= {"model.embed_tokens.weight": (raw["vocab_size"], D), "model.norm.weight": (D,)}
    if not raw["tie_word_embeddings"]:
        whole["lm_head.weight"] = (raw["vocab_size"], D)
    return whole


def weights(raw: dict[str, Any], seed: int = 0, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """Random tensors, large enough that what comes out differs from context to context; no norm is left at one."""
    rng, gemma = np.random.default_rng(seed), raw["model_type"].startswith("gemma")
    found = {}
    for name, shape in shapes(raw).items():
        spread, centre = (2.0 * shape[-1] ** -0.5 if len(shape) > 1 else 0.4), 0.0
        if "norm" in name and not gemma:
            centre = 1.0
        if gemma and name in ("model.embed_tokens.weight", "model.norm.weight"):
            # Scaled and tied embeddings would make each token follow itself; small ones leave it to the layers.
            spread, centre = (0.06, 0.0) if "embed" in name else (0.4, 8.0)
        found[name] = (centre + spread * rng.standard_normal(shape)).astype(np.float32).astype(dtype)
    return found


def write(folder: Path, raw: dict[str, Any], tensors: dict[str, np.ndarray] | None = None) -> Path:
    """A folder with `config.json` and one file of weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(raw))
    save_file(weights(raw) if tensors is None else tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def prompts() -> list[list[int]]:
    """A ragged batch, shorter and longer than the windows."""
    rng = np.random.default_rng(1)
    return [rng.integers(3, SIZES["vocab_size"], length).tolist() for length in (3, 24, 11)]


def padded(rows: list[list[int]]) -> np.ndarray:
    """Rows [B, T] of one length, padded at their ends with 0."""
    longest = max(map(len, rows))
    return np.asarray([row + [0] * (longest - len(row)) for row in rows], np.int32)


def bits(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Every tensor of a folder: its type, shape and bytes."""
    found = {}
    for name, where in tensors.find(folder).items():
        array, _ = tensors.read(where, [slice(None)] * len(where.shape), tensors.DTYPES[where.dtype])
        found[name] = where.dtype, where.shape, array.tobytes()
    return found
