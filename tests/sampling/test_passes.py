"""The plan of passes: every request once, room for each, and no dearer than going together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore_jax.sampling.passes import Pass, plan

BUCKETS, LONGEST = (8, 32, 12), 20  # of any order
REQUESTS = st.lists(st.tuples(st.integers(1, 32), st.integers(1, LONGEST)), max_size=60)


@given(requests=REQUESTS, slots=st.integers(1, 16))
def test_every_request_is_in_one_pass_that_has_room_for_it(requests: list[tuple[int, int]], slots: int):
    lengths, limits = [r[0] for r in requests], [r[1] for r in requests]
    made = plan(lengths, limits, BUCKETS, LONGEST, slots)
    assert sorted(i for group in made for i in group.members) == list(range(len(requests)))
    for group in made:
        assert group.prefix_columns in BUCKETS
        assert group.prefix_columns >= max(lengths[i] for i in group.members)
        assert LONGEST >= group.ring >= max(limits[i] for i in group.members)
    if made:
        together = Pass(max(group.prefix_columns for group in made), LONGEST, slots, 1, tuple(range(len(requests))))
        assert sum(group.cost for group in made) <= together.cost


@given(requests=REQUESTS, slots=st.integers(1, 16).map(lambda n: 2 * n))
def test_slots_are_all_or_a_quarter_and_divide_by_the_devices(requests: list[tuple[int, int]], slots: int):
    for group in plan([r[0] for r in requests], [r[1] for r in requests], BUCKETS, LONGEST, slots, devices=2):
        assert group.slots in (slots, slots // 4)
        assert group.slots % 2 == 0
        assert group.slots == slots or len(group.members) <= group.slots


def test_continuations_of_long_prefixes_have_shorter_rings():
    # Eighths of 20 are 2.5 columns: limits of 3 and 5 take two of them, 8 and 9 four.
    rings = [plan([1], [limit], BUCKETS, LONGEST, 1)[0].ring for limit in (1, 3, 5, 8, 9, 20)]
    assert rings == [3, 5, 5, 10, 10, 20]


@pytest.mark.parametrize(
    ("short", "few_long", "expected"),
    [
        (100, 2, [(8, 16, 100), (32, 4, 2)]),  # 28 * (100 + 16) + 52 * (2 + 4) = 3560; all together 52 * 118 = 6136
        (10, 6, [(32, 16, 16)]),  # 52 * 32 = 1664; apart 28 * 26 + 52 * 22 = 1872
    ],
)
def test_the_cheaper_plan_is_taken(short: int, few_long: int, expected: list[tuple[int, int, int]]):
    made = plan([5] * short + [30] * few_long, [20] * (short + few_long), BUCKETS, LONGEST, 16, devices=2)
    assert [(group.prefix_columns, group.slots, len(group.members)) for group in made] == expected


def test_requests_of_one_source_have_groups():
    def widths(each: int, sources: int, slots: int = 16, devices: int = 2) -> list[int]:
        owners = [n for n in range(sources) for _ in range(each)]
        sizes = [5] * len(owners), [20] * len(owners), BUCKETS, LONGEST, slots, devices
        return [group.width for group in plan(*sizes, owners)]

    assert widths(each=3, sources=10) == [1]
    assert widths(each=4, sources=10) == widths(each=7, sources=10) == [4]
    assert widths(each=8, sources=10) == widths(each=48, sources=10) == [8]
    assert widths(each=48, sources=10, slots=8) == [4]  # four slots a device
    assert widths(each=48, sources=10, slots=2) == [1]


def test_no_requests_make_no_passes():
    assert plan([], [], BUCKETS, LONGEST, 4) == []
