"""The pieces of sampling, each by itself: what a slot sees, how a token is drawn, what names its randomness."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from glore_jax.sampling import draws, kv_cache
from glore_jax.sampling.requests import name_words


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


def test_a_prefix_goes_to_the_groups_that_are_filled_alone():
    def filled(rows: int, columns: int, value: float, name: str) -> dict[str, jax.Array]:
        numbers = value + jnp.arange(rows, dtype=jnp.float32)[:, None, None, None]
        k, v = jnp.broadcast_to(numbers, (rows, 2, 1, columns)), jnp.broadcast_to(numbers, (rows, 2, columns, 1))
        return {f"{name}k": k, f"{name}v": v}

    cache = [filled(3, 2, 10.0, "shared_") | filled(6, 5, 20.0, "")]  # three groups of two slots
    found = kv_cache.insert(cache, [filled(2, 2, 90.0, "")], jnp.array([1, 0, 0]), jnp.array([True, False, True]))[0]
    for name, place in (("k", np.s_[:, 0, 0]), ("v", np.s_[:, 1, :, 0])):
        np.testing.assert_array_equal(found[f"shared_{name}"][place], [[91, 91], [11, 11], [90, 90]])
        np.testing.assert_array_equal(found[name], cache[0][name])


def test_draw_inverts_the_distribution_function():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    cases = [(0.0, 0), (0.499, 0), (0.501, 1), (0.749, 1), (0.751, 2), (0.9999999, 2)]
    for uniform, token in cases:
        assert draws.draw(logits, jnp.array([uniform]), jnp.array([1.0]))[0] == token
    # At temperature 1/2 the odds are squared: 4 to 1 to 1.
    for uniform, token in [(0.66, 0), (0.67, 1), (0.83, 1), (0.84, 2)]:
        assert draws.draw(logits, jnp.array([uniform]), jnp.array([0.5]))[0] == token


def test_draw_never_takes_what_cannot_be():
    logits = jnp.array([[-jnp.inf, 0.0, -jnp.inf, 0.0, -jnp.inf]] * 3)
    uniform = jnp.array([0.0, 0.4999, 0.9999999])
    assert draws.draw(logits, uniform, jnp.ones(3)).tolist() == [1, 1, 3]
    assert draws.draw(jnp.array([[0.0, 2.0, 1.0, 2.0, 1.0]] * 3), uniform, jnp.zeros(3)).tolist() == [1, 1, 1]


def by_sorting(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> np.ndarray:
    """The distribution that is drawn from, by definition: float64, sorted; equals of the last token stay in."""
    odds = np.exp((logits.astype(np.float64) - logits.max()) / temperature)
    if top_k:
        odds = np.where(odds >= np.sort(odds)[-top_k], odds, 0.0)
    ordered = np.sort(odds)[::-1]
    last = ordered[np.searchsorted(np.cumsum(ordered), top_p * odds.sum())] if top_p < 1 else 0.0
    odds = np.where(odds >= last, odds, 0.0)
    return odds / odds.sum()


@pytest.mark.parametrize("size", [5, 64, 1000])
def test_the_most_likely_tokens_are_those_of_sorting(size: int):
    """Each row has its own cuts; a fine grid of uniforms finds every token that can be drawn, and how often."""
    rng = np.random.default_rng(size)
    grid = (np.arange(20_000) + 0.5) / 20_000
    for temperature, top_k, top_p in [(1.0, 0, 0.9), (0.7, 3, 1.0), (1.3, 4, 0.6), (1.0, 1, 1.0), (2.0, 0, 0.05)]:
        logits = np.round(rng.normal(size=size), 1).astype(np.float32) * 2  # some are equal
        rows = np.broadcast_to(logits, (len(grid), size))
        settings = (np.full(len(grid), x) for x in (np.float32(temperature), top_k, np.float32(top_p)))
        found = np.bincount(
            draws.draw(jnp.asarray(rows), jnp.asarray(grid, jnp.float32), *map(jnp.asarray, settings)), minlength=size
        )
        expected = by_sorting(logits, temperature, top_k, top_p)
        np.testing.assert_allclose(found / len(grid), expected, atol=2e-4)
        assert set(np.flatnonzero(found)) <= set(np.flatnonzero(expected))


def test_rows_have_cuts_of_their_own():
    logits = jnp.array([[3.0, 2.0, 1.0, 0.0]] * 5)
    top_k, top_p = jnp.array([0, 1, 2, 0, 0]), jnp.array([1.0, 1.0, 1.0, 0.5, 0.7])
    found = draws.draw(logits, jnp.full(5, 0.9999), jnp.array([1.0, 1.0, 1.0, 1.0, 0.0]), top_k, top_p)
    assert found.tolist() == [3, 0, 1, 0, 0]  # e^3 is 64 % of all; the last row is greedy


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_have_the_exact_distribution(temperature: float):
    """Chi-square of 20,000 draws, named one by one as the engine names them."""
    count = 20_000
    logits = jnp.array([0.0, 1.0, -2.0, 0.5, 3.0, -0.5])
    names = jnp.asarray([name_words(f"q{i}/0") for i in range(count // 4)], jnp.uint32).repeat(4, axis=0)
    uniform = draws.uniforms(jax.random.key(0), names, jnp.tile(jnp.arange(4), count // 4))
    tokens = draws.draw(jnp.broadcast_to(logits, (count, 6)), uniform, jnp.full((count,), temperature))
    expected = np.asarray(jax.nn.softmax(logits.astype(jnp.float32) / temperature), np.float64)
    observed = np.bincount(np.asarray(tokens), minlength=6)
    assert stats.chisquare(observed, expected / expected.sum() * count).pvalue > 1e-3


def test_randomness_goes_by_key_name_and_position():
    names = jnp.asarray([name_words("a"), name_words("b")], jnp.uint32)
    key = jax.random.key(0)
    here = draws.uniforms(key, names, jnp.array([3, 3]))
    swapped = draws.uniforms(key, names[::-1], jnp.array([3, 3]))
    np.testing.assert_array_equal(here, swapped[::-1])
    others = [
        draws.uniforms(key, names, jnp.array([4, 4])),
        draws.uniforms(jax.random.key(1), names, jnp.array([3, 3])),
    ]
    values = [float(x) for row in (here, *others) for x in row]
    assert len(set(values)) == 6


def test_names_are_spread():
    words = [name_words(f"train-{i}/{k}") for i in range(200) for k in range(4)]
    assert len(set(words)) == 800
    assert all(0 <= x < 2**32 for pair in words for x in pair)
