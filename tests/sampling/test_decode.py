"""The pieces of sampling, each by itself: what a slot sees, how a token is drawn, what names its randomness."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from glore_jax.sampling import decode, kv_cache
from glore_jax.sampling.engine import name_words


@pytest.mark.parametrize(
    ("prefix", "start", "step", "expected"),
    [
        # Two prefix columns, then a ring of three. A slot sees its own prefix and what was written since it began.
        (0, 0, 0, [0, 0, 1, 0, 0]),
        (1, 0, 1, [1, 0, 1, 1, 0]),
        (2, 0, 2, [1, 1, 1, 1, 1]),
        (2, 3, 3, [1, 1, 1, 0, 0]),  # step 3 wrote ring column 0; columns 1 and 2 hold steps 1 and 2
        (2, 2, 4, [1, 1, 1, 1, 1]),  # steps 3, 4, 2
        (0, 4, 5, [0, 0, 0, 1, 1]),  # steps 3, 4, 5
    ],
)
def test_visible_columns(prefix: int, start: int, step: int, expected: list[int]):
    seen = kv_cache.visible(jnp.array([prefix]), jnp.array([start]), jnp.array(step), 2, 3)
    np.testing.assert_array_equal(seen[0].astype(int), expected)


def test_visible_is_what_a_written_log_says():
    """Against a log of which step wrote each ring column."""
    ring, log = 5, [-100] * 5
    for step in range(17):
        log[step % ring] = step
        for start in range(max(0, step - ring + 1), step + 1):
            seen = kv_cache.visible(jnp.array([3]), jnp.array([start]), jnp.array(step), 4, ring)[0]
            assert seen[:4].tolist() == [True, True, True, False]
            assert seen[4:].tolist() == [start <= at <= step for at in log]


def test_a_prefix_goes_to_the_slots_that_are_filled_alone():
    def filled(rows: int, columns: int, value: float) -> kv_cache.Cache:
        numbers = value + jnp.arange(rows, dtype=jnp.float32)[:, None, None, None]
        return [{"k": jnp.broadcast_to(numbers, (rows, 2, 1, columns)), "v": jnp.full((rows, 2, columns, 1), value)}]

    cache = kv_cache.insert(
        filled(3, 5, 10.0), filled(2, 3, 90.0), jnp.array([1, 0, 0]), jnp.array([True, False, True])
    )
    np.testing.assert_array_equal(cache[0]["k"][:, 0, 0], [[91, 91, 91, 10, 10], [11] * 5, [90, 90, 90, 12, 12]])
    np.testing.assert_array_equal(cache[0]["v"][:, 1, :, 0], [[90, 90, 90, 10, 10], [10] * 5, [90, 90, 90, 10, 10]])


def test_draw_inverts_the_distribution_function():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    cases = [(0.0, 0), (0.499, 0), (0.501, 1), (0.749, 1), (0.751, 2), (0.9999999, 2)]
    for uniform, token in cases:
        assert decode.draw(logits, jnp.array([uniform]), jnp.array([1.0]))[0] == token
    # At temperature 1/2 the odds are squared: 4 to 1 to 1.
    for uniform, token in [(0.66, 0), (0.67, 1), (0.83, 1), (0.84, 2)]:
        assert decode.draw(logits, jnp.array([uniform]), jnp.array([0.5]))[0] == token


def test_draw_never_takes_what_cannot_be():
    logits = jnp.array([[-jnp.inf, 0.0, -jnp.inf, 0.0, -jnp.inf]] * 3)
    uniform = jnp.array([0.0, 0.4999, 0.9999999])
    assert decode.draw(logits, uniform, jnp.ones(3)).tolist() == [1, 1, 3]
    assert decode.draw(jnp.array([[0.0, 2.0, 1.0, 2.0, 1.0]] * 3), uniform, jnp.zeros(3)).tolist() == [1, 1, 1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_have_the_exact_distribution(temperature: float):
    """Chi-square of 20,000 draws, named one by one as the engine names them."""
    count = 20_000
    logits = jnp.array([0.0, 1.0, -2.0, 0.5, 3.0, -0.5])
    names = jnp.asarray([name_words(f"q{i}/0") for i in range(count // 4)], jnp.uint32).repeat(4, axis=0)
    uniform = decode.uniforms(jax.random.key(0), names, jnp.tile(jnp.arange(4), count // 4))
    tokens = decode.draw(jnp.broadcast_to(logits, (count, 6)), uniform, jnp.full((count,), temperature))
    expected = np.asarray(jax.nn.softmax(logits.astype(jnp.float32) / temperature), np.float64)
    observed = np.bincount(np.asarray(tokens), minlength=6)
    assert stats.chisquare(observed, expected / expected.sum() * count).pvalue > 1e-3


def test_randomness_goes_by_key_name_and_position():
    names = jnp.asarray([name_words("a"), name_words("b")], jnp.uint32)
    key = jax.random.key(0)
    here = decode.uniforms(key, names, jnp.array([3, 3]))
    swapped = decode.uniforms(key, names[::-1], jnp.array([3, 3]))
    np.testing.assert_array_equal(here, swapped[::-1])
    others = [
        decode.uniforms(key, names, jnp.array([4, 4])),
        decode.uniforms(jax.random.key(1), names, jnp.array([3, 3])),
    ]
    values = [float(x) for row in (here, *others) for x in row]
    assert len(set(values)) == 6


def test_names_are_spread():
    words = [name_words(f"train-{i}/{k}") for i in range(200) for k in range(4)]
    assert len(set(words)) == 800
    assert all(0 <= x < 2**32 for pair in words for x in pair)
