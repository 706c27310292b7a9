"""What each family of decoders is, as data: `config.json` of Hugging Face folders to `DecoderConfig` and back.

A family fixes some traits (Gemma 2 has soft caps) and leaves sizes to the file. Both the older spelling of rotary
settings (`rope_theta`, `rope_scaling`) and the one of transformers 5 (`rope_parameters`) are read; the older one is
written, which every version reads. A key that a file leaves out has the value that transformers gives it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from glore_jax.errors import InputError
from glore_jax.models.decoder import DecoderConfig

Json = dict[str, Any]
GELU = "gelu_pytorch_tanh"
CAUSAL, VALUE = "ForCausalLM", "ForTokenClassification"
_SLIDING, _FULL = "sliding_attention", "full_attention"
_SIZES = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "intermediate_size": "d_ff",
}
# Keys that change what a model computes, where the decoder knows one value only.
_FIXED = {"attention_bias": False, "mlp_bias": False, "use_bidirectional_attention": False, "partial_rotary_factor": 1}


@dataclasses.dataclass(frozen=True)
class Family:
    """An architecture of transformers.

    Attributes:
      model_type: as `config.json` names it.
      stem: what its class names begin with.
      traits: fields of `DecoderConfig` that the architecture fixes.
      options: fields, beside sizes and rotary positions, that it reads from `config.json`.
      defaults: keys of `config.json` that may be missing, where the family has a value of its own.
      scores: whether transformers has a token classification class for it.
    """

    model_type: str
    stem: str
    traits: Json
    options: tuple[str, ...] = ()
    defaults: Json = dataclasses.field(default_factory=dict)
    scores: bool = True


_QWEN = {"sliding_window": 4096, "max_window_layers": 28, "num_key_value_heads": 32}
_GEMMA = {"post_norms": True, "unit_offset_norm": True, "scale_embedding": True, "activation": "gelu_tanh"}
FAMILIES = (
    Family("llama", "Llama", {}),
    Family("mistral", "Mistral", {}, ("layer_windows",), {"sliding_window": 4096, "num_key_value_heads": 8}),
    Family("qwen2", "Qwen2", {"qkv_bias": True}, ("layer_windows",), _QWEN),
    Family("qwen3", "Qwen3", {"qk_norm": True}, ("layer_windows",), _QWEN | {"head_dim": 128}),
    Family(
        "gemma2",
        "Gemma2",
        _GEMMA,
        ("layer_windows", "attention_soft_cap", "logit_soft_cap", "query_pre_attn_scalar"),
        {
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
            "head_dim": 256,
            "num_key_value_heads": 4,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "sliding_window_pattern": 2,
            "tie_word_embeddings": True,
        },
    ),
    Family(
        "gemma3_text",
        "Gemma3",
        _GEMMA | {"qk_norm": True},
        ("layer_windows", "logit_soft_cap", "query_pre_attn_scalar", "local_rope_theta"),
        {
            "head_dim": 256,
            "num_key_value_heads": 4,
            "query_pre_attn_scalar": 256,
            "sliding_window": 4096,
            "sliding_window_pattern": 6,
            "tie_word_embeddings": True,
            "rope_theta": 1_000_000.0,
            "rope_local_base_freq": 10_000.0,
        },
        scores=False,
    ),
)
_TRAITS = ("qkv_bias", "qk_norm", "post_norms", "unit_offset_norm", "scale_embedding", "activation")
_OPTIONS = ("layer_windows", "attention_soft_cap", "logit_soft_cap", "query_pre_attn_scalar", "local_rope_theta")
_PLAIN = {f.name: f.default for f in dataclasses.fields(DecoderConfig)}


def architectures() -> list[str]:
    """The names that `architectures` of a `config.json` may have."""
    return [f.stem + kind for f in FAMILIES for kind in (CAUSAL, VALUE) if f.scores or kind == CAUSAL]


def read(raw: Json, problems: list[str]) -> tuple[DecoderConfig | None, str]:
    """The decoder that a `config.json` describes, and `CAUSAL` or `VALUE`.

    Args:
      problems: gets a line for each key that is missing or asks for what the decoder does not do; the
        configuration is then None.
    """
    named = raw.get("architectures") or ["(none)"]
    family = next((f for f in FAMILIES if named[0] in (f.stem + CAUSAL, f.stem + VALUE)), None)
    if family is None:
        problems.append(f"config.json: unknown architecture {named[0]}; there are {', '.join(architectures())}")
        return None, CAUSAL
    kind = VALUE if named[0].endswith(VALUE) else CAUSAL
    raw = family.defaults | raw
    if missing := [key for key in _SIZES if not isinstance(raw.get(key), int)]:
        problems += [f"config.json: {key} is {raw.get(key, 'missing')}; expected a number" for key in missing]
        return None, kind
    before = len(problems)
    expected = {"hidden_act": GELU if family.traits.get("activation") == "gelu_tanh" else "silu"} | _FIXED
    found = (raw.get("rope_parameters") or {}) | raw
    found = {"hidden_act": raw.get("hidden_activation") or raw.get("hidden_act")} | {k: found.get(k) for k in _FIXED}
    for key, value in found.items():
        if value is not None and value != (known := expected[key]):
            problems.append(f"config.json: {key} is {value}; a {family.stem} decoder can do {known} only")
    fields = family.traits | {field: raw[key] for key, field in _SIZES.items()}
    fields |= _read_rotary(raw, problems) | _read_windows(family, raw, problems)
    fields |= {
        "num_kv_heads": raw.get("num_key_value_heads") or raw["num_attention_heads"],
        "head_dim": raw.get("head_dim") or raw["hidden_size"] // raw["num_attention_heads"],
        "norm_eps": raw.get("rms_norm_eps", 1e-6),
        "max_positions": raw.get("max_position_embeddings", 0),
        "tied_embedding": kind == VALUE or raw.get("tie_word_embeddings", False),  # no unembedding beside a score
    }
    if "attention_soft_cap" in family.options:
        fields["attention_soft_cap"] = raw["attn_logit_softcapping"] or 0.0
    if "logit_soft_cap" in family.options:
        fields["logit_soft_cap"] = raw.get("final_logit_softcapping") or 0.0
    if "query_pre_attn_scalar" in family.options:
        fields["query_pre_attn_scalar"] = raw["query_pre_attn_scalar"]
    if len(problems) > before:
        return None, kind
    try:
        return DecoderConfig(**fields), kind
    except ValueError as error:
        problems.append(f"config.json: {error}")
        return None, kind


def _read_rotary(raw: Json, problems: list[str]) -> Json:
    """Fields of the rotary positions."""
    settings = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    nested = isinstance(settings.get(_FULL), Mapping)  # transformers 5, where kinds of layers differ
    settings, local = (settings[_FULL], settings.get(_SLIDING) or {}) if nested else (settings, {})
    fields: Json = {"rope_theta": float(settings.get("rope_theta") or raw.get("rope_theta") or 10_000.0)}
    if "rope_local_base_freq" in raw:
        fields["local_rope_theta"] = float(local.get("rope_theta") or raw["rope_local_base_freq"])
    kind = settings.get("rope_type") or settings.get("type") or "default"
    named = {"factor": "rope_factor"}
    if kind == "llama3":
        named |= {"original_max_position_embeddings": "rope_original"}
        named |= {"low_freq_factor": "rope_low", "high_freq_factor": "rope_high"}
    if kind not in ("default", "linear", "llama3") or local.get("rope_type", "default") != "default":
        problems.append(f"config.json: rotary positions of type {kind}; the decoder knows default, linear and llama3")
    elif kind != "default":
        problems += [f"config.json: rope_scaling lacks {key}" for key in named if key not in settings]
        fields |= {field: settings[key] for key, field in named.items() if key in settings}
    return fields


def _read_windows(family: Family, raw: Json, problems: list[str]) -> Json:
    """`layer_windows`, from an explicit list of layer types or the family's pattern."""
    layers, window = raw["num_hidden_layers"], raw.get("sliding_window")
    if "layer_windows" not in family.options or (family.stem.startswith("Qwen") and not raw.get("use_sliding_window")):
        return {}
    if family.model_type == "mistral":
        kinds = [_SLIDING if window else _FULL] * layers
    elif family.stem.startswith("Qwen"):
        kinds = [_SLIDING if i >= raw["max_window_layers"] else _FULL for i in range(layers)]
    else:
        kinds = [_SLIDING if (i + 1) % raw["sliding_window_pattern"] else _FULL for i in range(layers)]
    if family.model_type != "mistral":
        kinds = raw.get("layer_types") or kinds
    if len(kinds) != layers or set(kinds) - {_SLIDING, _FULL} or (_SLIDING in kinds and not window):
        problems.append(
            f"config.json: layer_types {kinds} with sliding_window {window}; expected {layers} of {_FULL} and "
            f"{_SLIDING}, and a window where any is sliding"
        )
        return {}
    windows = tuple(window if kind == _SLIDING else 0 for kind in kinds)
    return {"layer_windows": windows if any(windows) else ()}


def family_of(config: DecoderConfig) -> Family:
    """The first family that has everything a decoder has.

    Raises:
      InputError: none has; the traits in the way are named.
    """
    if config.prefix_lm:
        raise InputError(
            "prefix_lm=True: no architecture of transformers reads a prompt in both directions, so it would compute "
            "something else; train with prefix_lm=False (model.prefix_lm of configs/arithmetic_base.py) to export"
        )
    windows = set(config.layer_windows)
    for family in FAMILIES:
        traits = all(getattr(config, t) == family.traits.get(t, _PLAIN[t]) for t in _TRAITS)
        options = all(getattr(config, o) == _PLAIN[o] for o in _OPTIONS if o not in family.options)
        uniform = family.model_type != "mistral" or len(windows) == 1
        local = "local_rope_theta" not in family.options or config.local_rope_theta > 0
        if traits and options and uniform and local and len(windows - {0}) <= 1:
            return family
    odd = {name: getattr(config, name) for name in (*_TRAITS, *_OPTIONS) if getattr(config, name) != _PLAIN[name]}
    named = ", ".join(f"{name}={value!r}" for name, value in odd.items())
    raise InputError(
        f"no architecture of transformers has all of {named}; families are {', '.join(f.stem for f in FAMILIES)}, "
        "and layer_windows may have one size beside 0"
    )


def has(config: DecoderConfig) -> bool:
    """Whether some family has everything that a decoder has."""
    try:
        family_of(config)
    except InputError:
        return False
    return True


def write(config: DecoderConfig, kind: str, dtype: str) -> Json:
    """The `config.json` of a decoder.

    Args:
      kind: `CAUSAL`, or `VALUE` for a value model.
      dtype: of the tensors beside it.

    Raises:
      InputError: no family has everything that this decoder has, or it has no class for value models.
    """
    family, c = family_of(config), config
    if kind == VALUE and not family.scores:
        raise InputError(f"transformers has no {family.stem}{VALUE}: a value model of this family cannot be exported")
    gelu = c.activation == "gelu_tanh"
    raw: Json = {"architectures": [family.stem + kind], "model_type": family.model_type}
    raw |= {key: getattr(c, field) for key, field in _SIZES.items()}
    raw |= {"num_key_value_heads": c.num_kv_heads, "head_dim": c.head_dim, "rms_norm_eps": c.norm_eps}
    raw |= {"hidden_activation" if gelu else "hidden_act": GELU if gelu else "silu"}
    raw |= {"tie_word_embeddings": c.tied_embedding, "dtype": dtype, "torch_dtype": dtype}
    raw |= {"max_position_embeddings": c.max_positions} if c.max_positions else {}
    raw |= {"rope_theta": c.rope_theta}
    if c.rope_factor != 1.0:
        raw["rope_scaling"] = {"rope_type": "llama3" if c.rope_original else "linear", "factor": c.rope_factor}
        if c.rope_original:
            raw["rope_scaling"] |= {"low_freq_factor": c.rope_low, "high_freq_factor": c.rope_high}
            raw["rope_scaling"] |= {"original_max_position_embeddings": c.rope_original}
    if "layer_windows" in family.options:
        raw["sliding_window"] = max(c.layer_windows, default=0) or None
        if family.model_type != "mistral":
            raw["layer_types"] = [_SLIDING if c.window(i) else _FULL for i in range(c.num_layers)]
        if family.stem.startswith("Qwen"):
            raw["use_sliding_window"] = any(c.layer_windows)
    if "attention_soft_cap" in family.options:
        raw["attn_logit_softcapping"] = c.attention_soft_cap or None
    if "logit_soft_cap" in family.options:
        raw["final_logit_softcapping"] = c.logit_soft_cap or None
    if "query_pre_attn_scalar" in family.options:
        raw["query_pre_attn_scalar"] = c.query_pre_attn_scalar or c.head_dim
    if "local_rope_theta" in family.options:
        raw["rope_local_base_freq"] = c.local_rope_theta
    return raw
