"""Which prefixes of a trace are rolled out, and how often: everywhere (the paper's), or only where it can tell.

With propagation the last prefix that any rollout mends decides all before it. So a search from the last prefix backward
may stop there: the labels are those of rolling out everywhere, because rollout k of a prefix is the same in whatever
company it is sampled; and so are the local pairs, made of the rollouts of that prefix and the next one. Where labels
alone are wanted, a prefix needs no more rollouts than up to the first that mends it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from glore_jax.errors import InputError
from glore_jax.method import labels
from glore_jax.records import Rollout, Solution

SEARCHES = ("all", "backward", "first")
Skipped = Callable[[int], None]


class Rolling(Protocol):
    """Rollouts under way; see `sampling.rollouts.Rollouts`."""

    def ask(self, trace: Solution, prefix: int, samples: Sequence[int], more: bool = False) -> None: ...

    def give_up(self, trace: Solution, prefix: int, samples: Sequence[int]) -> None: ...

    def __iter__(self) -> Iterator[Rollout]: ...


def check(settings: Any) -> None:
    """InputError where `labels.search` is none of `SEARCHES`, or cannot tell the labels, or from too few rollouts."""
    for key, least in (("rollouts", 1), ("boundary_rollouts", 0)):
        if settings[key] < least:
            raise InputError(f"labels.{key}={settings[key]}: expected {least} or more")
    if settings.search not in SEARCHES:
        raise InputError(f"labels.search={settings.search!r}: expected one of {', '.join(SEARCHES)}")
    if settings.search != "all" and not settings.propagation:
        raise InputError(
            f"labels.search={settings.search!r} leaves out what propagation decides; set labels.propagation=True, or "
            "search='all'"
        )


def collect(rolling: Rolling, traces: Sequence[Solution], settings: Any, skipped: Skipped) -> list[Rollout]:
    """All rollouts that the labels of some traces need, ordered by trace, prefix and number.

    Each trace is searched for itself, those with the most prefixes first, so that none is left alone at the end.

    Args:
      traces: each of two steps or more.
      settings: the group `labels`: `search`, `rollouts`, `boundary_rollouts`, `consistency`.
      skipped: told of the rollouts that the search could do without.
    """
    searches = {trace.id: _Search(rolling, trace, settings) for trace in traces}
    for search in sorted(searches.values(), key=lambda search: -search.trace.num_steps):
        search.go_on()
    for rollout in rolling:
        search = searches[rollout.trace_id]
        search.receive(rollout)
        if not search.waits:
            spared = (search.trace.num_steps - 1) * settings.rollouts - search.received(below=settings.rollouts)
            if spared:
                skipped(spared)
    kept = ((trace, searches[trace.id].kept) for trace in traces)
    return [rollout for _, found in kept for rollout in sorted(found, key=lambda r: (r.prefix, r.sample))]


class _Search:
    """The rollouts of one trace: those that its labels need, and those that are under way.

    What is kept hangs on the rollouts alone, not on the order in which they are done.
    """

    def __init__(self, rolling: Rolling, trace: Solution, settings: Any):
        self.rolling, self.trace, self.settings = rolling, trace, settings
        self.kept: list[Rollout] = []
        self.waits: set[tuple[int, int]] = set()  # prefix and number of what is under way
        self._found: dict[tuple[int, int], Rollout] = {}
        self._everywhere = settings.search == "all"
        self._more = not self._everywhere or settings.boundary_rollouts > 0

    def receive(self, rollout: Rollout) -> None:
        place = rollout.prefix, rollout.sample
        if place in self.waits:  # else it was done already when it was given up
            self.waits.remove(place)
            self._found[place] = rollout
            if self._everywhere and self.waits:
                return  # nothing is decided before the last one
            self.go_on()

    def received(self, below: int) -> int:
        """How many rollouts of numbers below this were done, needed or not."""
        return sum(sample < below for _, sample in self._found)

    def go_on(self) -> None:
        """Keeps what is decided, and asks for what comes next."""
        while asked := wanted(self.trace, self.kept, self.settings):
            places = [(prefix, sample) for prefix, samples in asked.items() for sample in samples]
            if self.settings.search == "first":
                places = self._to_the_first(places)
            self._ask(place for place in places if place not in self._found)
            missing = [place for place in places if place not in self._found]
            if missing:
                self._look_ahead(places, missing)
                return
            self.kept += [self._found[place] for place in places]
        self._give_up(self.waits)

    def _to_the_first(self, places: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Without the numbers behind the first rollout that is known to mend the prefix."""
        known = (n for n, place in enumerate(places) if self._mended(place))
        size = next(known, len(places) - 1) + 1
        self._give_up(place for place in places[size:] if place in self.waits)
        return places[:size]

    def _look_ahead(self, places: Sequence[tuple[int, int]], missing: Sequence[tuple[int, int]]) -> None:
        """Asks for the next prefix, too, where half of the rollouts are done and none of them mends this one.

        Slots that continue this trace would stand idle meanwhile. What turns out to be unneeded is not kept.
        """
        prefix = places[0][0]
        backward = not self._everywhere and prefix > 1 and places[0][1] == 0
        if backward and 2 * len(missing) <= len(places) and not any(map(self._mended, places)):
            self._ask((prefix - 1, sample) for sample in range(self.settings.rollouts))

    def _mended(self, place: tuple[int, int]) -> bool:
        return place in self._found and _mends(self.trace, self._found[place], self.settings.consistency)

    def _ask(self, places: Iterable[tuple[int, int]]) -> None:
        for prefix, samples in _by_prefix(set(places) - self.waits - set(self._found)):
            self.waits.update((prefix, sample) for sample in samples)
            self.rolling.ask(self.trace, prefix, samples, self._more)

    def _give_up(self, places: Iterable[tuple[int, int]]) -> None:
        for prefix, samples in _by_prefix(places):
            self.waits.difference_update((prefix, sample) for sample in samples)
            self.rolling.give_up(self.trace, prefix, samples)


def _by_prefix(places: Iterable[tuple[int, int]]) -> list[tuple[int, list[int]]]:
    """Numbers by prefix, of which the last comes first."""
    samples: dict[int, list[int]] = defaultdict(list)
    for prefix, sample in sorted(places):
        samples[prefix].append(sample)
    return sorted(samples.items(), reverse=True)


def wanted(trace: Solution, found: Sequence[Rollout], settings: Any) -> dict[int, range]:
    """Numbers of the rollouts that the labels of a trace need next, by prefix; none when they are decided.

    Args:
      found: those that it has.
    """
    counts = Counter(rollout.prefix for rollout in found)
    if settings.search == "all":
        if not found:
            return {i: range(settings.rollouts) for i in range(1, trace.num_steps)}
    else:
        last = min(counts, default=trace.num_steps)
        mended = any(_mends(trace, rollout, settings.consistency) for rollout in found if rollout.prefix == last)
        if not mended and last > 1:
            return {last - 1: range(settings.rollouts)}
    made = labels.propagate(labels.raw_labels(trace, found, settings.consistency))
    boundary = made.index(0) + 1 if 0 in made else trace.num_steps
    # The first negative prefix, on which the labels hang, has more rollouts, unless it had them.
    if boundary < trace.num_steps and settings.boundary_rollouts and counts[boundary] <= settings.rollouts:
        return {boundary: range(settings.rollouts, settings.rollouts + settings.boundary_rollouts)}
    return {}


def _mends(trace: Solution, rollout: Rollout, reading: str) -> bool:
    """Whether a rollout makes its prefix positive."""
    return rollout.right and labels.uses_prefix(trace, rollout, reading)
