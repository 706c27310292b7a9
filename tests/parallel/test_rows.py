"""Rows of unlike length: each in one batch that it fits, in few shapes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from glore_jax.parallel import rows as rows_


@given(st.lists(st.integers(1, 3000), max_size=200), st.sampled_from([1, 2, 8]), st.sampled_from([16, 64]))
def test_every_row_is_in_one_batch_that_it_fits(lengths: list[int], devices: int, most: int):
    seen: list[int] = []
    for batch, rows, width in rows_.batches(lengths, devices, most):
        assert 0 < len(batch) <= rows <= most
        assert rows % devices == 0
        assert max(lengths[i] for i in batch) <= width
        assert rows == devices or rows * width**2 <= rows_._CELLS
        seen += batch
    assert sorted(seen) == list(range(len(lengths)))


def test_there_are_few_widths():
    widths = [rows_.width(length) for length in range(1, 8193)]
    assert all(length <= wide for length, wide in enumerate(widths, 1))
    assert len(set(widths)) <= 25
