"""Floating-point operations of a decoder, by formula: a product of [A, B] and [B, C] takes 2 A B C.

Counted are the products with weights and those of attention, which are all but a few in a thousand. Rows of the
embedding are looked up, which takes none. Attention reads what a position may see, not what a program pads it to: a
packed row of T tokens counts as one sequence, of which a token sees half on average.
"""

from __future__ import annotations

from glore_jax.models.decoder import DecoderConfig

_BACKWARD = 2  # a gradient for what went in, and one for the weights, each as much as the way forward


def weights(config: DecoderConfig, with_logits: bool = True) -> int:
    """Numbers in the matrices that each token is multiplied with.

    >>> weights(DecoderConfig(32_000, 5120, 40, 40, 40, 128, 13_824)) / 1e9
    12.8516096
    """
    c = config
    attention = 2 * c.d_model * (c.num_heads + c.num_kv_heads) * c.head_dim
    layers = c.num_layers * (attention + 3 * c.d_model * c.d_ff)
    return layers + (c.vocab_size * c.d_model if with_logits else 0)


def reading(config: DecoderConfig, tokens: int, seen: float, with_logits: bool = True) -> float:
    """Of reading so many tokens, each of which attends to `seen` keys on average."""
    scores = 2 * 2 * config.num_layers * config.num_heads * config.head_dim * seen  # with the keys, with the values
    return tokens * (2 * weights(config, with_logits) + scores)


def training(config: DecoderConfig, rows: int, length: int) -> float:
    """Of a step of training on packed rows: forward and backward; what is computed again to save memory is not counted.

    About 6 a weight and token (Kaplan et al., 2020, section 2.1), and attention.
    """
    return (1 + _BACKWARD) * reading(config, rows * length, length / 2)
