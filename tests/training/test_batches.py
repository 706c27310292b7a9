"""Examples and packing: every token once, nothing mixed, the same batches from the same arguments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.training import batches
from glore_jax.training.batches import Example

ROW = 12


def make_examples(sizes: Sequence[int]) -> list[Example]:
    """Example i holds the tokens 100 i + 1, 100 i + 2, …, so that each token tells where it comes from."""
    out = []
    for i, size in enumerate(sizes):
        tokens = 100 * i + np.arange(1, size + 1, dtype=np.int32)
        weights, source = np.full(size, 0.25, np.float32), size // 2
        out.append(Example(tokens, tokens + np.float32(0.5), weights, source, prefix=source))
    return out


sizes_of_examples = st.lists(st.integers(1, ROW), min_size=1, max_size=40)


@given(sizes_of_examples)
def test_packing_places_every_example_once_in_rows_that_hold_it(sizes: list[int]):
    rows = batches.pack(make_examples(sizes), ROW)
    assert sorted(itertools.chain.from_iterable(rows)) == list(range(len(sizes)))
    assert all(0 < sum(sizes[i] for i in row) <= ROW for row in rows)


@given(st.lists(st.integers(1, ROW // 2), min_size=1, max_size=40))
def test_packing_leaves_at_most_one_row_half_empty(sizes: list[int]):
    """Examples of at most half a row: two rows that are both half empty would have been one."""
    rows = batches.pack(make_examples(sizes), ROW)
    if len(sizes) <= 16:  # as long as no open row had to be closed
        assert sum(sum(sizes[i] for i in row) < ROW / 2 for row in rows) <= 1
    assert len(rows) <= 1 + 2 * sum(sizes) / ROW + 1


def test_an_example_longer_than_a_row_is_an_error():
    with pytest.raises(ValueError, match="example 1 has 13 tokens, more than the row length 12"):
        batches.pack(make_examples([3, 13]), ROW)


@given(sizes_of_examples, st.integers(1, 3), st.integers(0, 5))
def test_a_batch_mixes_nothing(sizes: list[int], batch_rows: int, seed: int):
    """Each segment is one whole example with its own positions, targets, weights and prefix."""
    for batch in itertools.islice(batches.epochs(make_examples(sizes), ROW, batch_rows, seed), 3):
        assert {array.shape for array in batch.values()} == {(batch_rows, ROW)}
        for r in range(batch_rows):
            row = {name: array[r] for name, array in batch.items()}
            padding = row["segments"] == 0
            assert not (row["weights"][padding].any() or row["tokens"][padding].any() or row["prefix"][padding].any())
            assert (np.diff(np.flatnonzero(padding)) == 1).all()  # all of it at the end
            for segment in range(1, row["segments"].max() + 1):
                (at,) = np.nonzero(row["segments"] == segment)
                size, first = len(at), row["tokens"][at[0]]
                assert size == sizes[first // 100]
                np.testing.assert_array_equal(at, np.arange(at[0], at[0] + size))
                np.testing.assert_array_equal(row["tokens"][at], first + np.arange(size))
                np.testing.assert_array_equal(row["positions"][at], np.arange(size))
                np.testing.assert_array_equal(row["targets"][at], row["tokens"][at] + 0.5)
                np.testing.assert_array_equal(row["weights"][at], 0.25)
                np.testing.assert_array_equal(row["prefix"][at], np.arange(size) < size // 2)
                np.testing.assert_array_equal(row["written"][at], np.arange(size) >= size // 2)


@given(sizes_of_examples, st.integers(0, 5))
def test_an_epoch_shows_every_token_once(sizes: list[int], seed: int):
    """With one row a batch nothing is left over, so the first batches are the first epoch."""
    examples = make_examples(sizes)
    total, seen = sum(sizes), []
    for batch in batches.epochs(examples, ROW, 1, seed):
        seen += batch["tokens"][batch["segments"] > 0].tolist()
        if len(seen) >= total:
            break
    assert sorted(seen) == sorted(np.concatenate([e.tokens for e in examples]).tolist())


def _same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(a[name], b[name]) for name in a)


@given(sizes_of_examples, st.integers(1, 3), st.integers(0, 5), st.integers(0, 7))
def test_starting_later_is_skipping(sizes: list[int], batch_rows: int, seed: int, start: int):
    examples = make_examples(sizes)
    whole = list(itertools.islice(batches.epochs(examples, ROW, batch_rows, seed), start + 3))
    again = itertools.islice(batches.epochs(examples, ROW, batch_rows, seed, start=start), 3)
    assert all(_same(a, b) for a, b in zip(whole[start:], again, strict=True))


def test_epochs_and_seeds_differ_in_order():
    examples = make_examples([ROW] * 8)

    def order(seed: int, epoch: int) -> list[int]:
        feed = itertools.islice(batches.epochs(examples, ROW, 1, seed), 8 * epoch, 8 * epoch + 8)
        return [int(batch["tokens"][0, 0]) for batch in feed]

    orders = [order(0, 0), order(0, 1), order(1, 0)]
    assert all(sorted(o) == sorted(orders[0]) for o in orders)
    assert len({tuple(o) for o in orders}) == 3


def test_few_examples_are_repeated_to_fill_a_batch():
    batch = next(batches.epochs(make_examples([5]), ROW, 4, 0))
    assert (batch["tokens"][:, 0] == 1).all()


def test_no_examples_are_an_error_not_an_endless_loop():
    with pytest.raises(ValueError, match="no examples"):
        next(batches.epochs([], ROW, 2, 0))


def test_a_language_example_learns_the_target_alone():
    example = batches.language_example([5, 6, 7], [8, 9, 2])
    assert example.tokens.tolist() == [5, 6, 7, 8, 9]
    assert example.targets.tolist() == [6, 7, 8, 9, 2]
    assert example.weights.tolist() == [0, 0, 1, 1, 1]
    assert example.prefix == 0
    # The last source token predicts the first target token, so it is read causally like every predicting one.
    assert batches.language_example([5, 6, 7], [8, 9, 2], prefix_lm=True).prefix == 2


def test_a_value_example_reads_values_at_step_ends():
    #                 question | step 0   step 1     step 2 (no label)
    example = batches.value_example([5, 6], [10, 11, 12, 13, 14, 15], [2, 5, 6], [1, 0, -1])
    assert example.tokens.tolist() == [5, 6, 10, 11, 12, 13, 14, 15]
    assert example.weights.tolist() == [0, 0, 0, 1, 0, 0, 1, 0]
    assert example.targets.tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    soft = batches.value_example([5], [10, 11], [1, 2], [0.25, 0.75])
    assert soft.targets.tolist() == [0, 0.25, 0.75]
    with pytest.raises(ValueError, match="zip"):
        batches.value_example([5], [10, 11], [1, 2], [1])
