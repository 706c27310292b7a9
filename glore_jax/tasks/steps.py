"""Cutting a worked solution into steps: lines that hold at most one intermediate result (docs/tasks.md)."""

from __future__ import annotations

import itertools
import re

_RESULT = re.compile(r"<<[^<>]*>>")
# Where a line may be cut between two results, the best kind first; what a match covers stays with the step before it.
_CUTS = (
    re.compile(r"[.!?][\"')]*\s+"),  # a sentence ends
    re.compile(r"[,;:]\s+"),  # a clause ends
    re.compile(r"\s+(?=(?:and|then|so|but|which|or)\s)"),  # another one begins
    re.compile(r"(?<=\d)\s+"),  # the result has been repeated after its annotation
)


def split(solution: str) -> list[str]:
    """The steps of a solution: its lines that are not blank, each cut until it holds one result at most.

    >>> split("He buys 3*4=<<3*4=12>>12 pears. They cost 12*2=$<<12*2=24>>24.\\n#### 24")
    ['He buys 3*4=<<3*4=12>>12 pears.', 'They cost 12*2=$<<12*2=24>>24.', '#### 24']
    """
    return [step for line in solution.split("\n") if line.strip() for step in _cut(line)]


def _cut(line: str) -> list[str]:
    """A line, cut once between every two neighbouring results.

    >>> _cut("2+3=<<2+3=5>>5 pens, 5*4=<<5*4=20>>20 cents and 20/2=<<20/2=10>>10 each")
    ['2+3=<<2+3=5>>5 pens,', '5*4=<<5*4=20>>20 cents', 'and 20/2=<<20/2=10>>10 each']
    >>> _cut("2*3=<<2*3=6>>6*4=<<6*4=24>>24")
    ['2*3=<<2*3=6>>', '6*4=<<6*4=24>>24']
    """
    results = list(_RESULT.finditer(line))
    places = [_place(line, a.end(), b.start()) for a, b in itertools.pairwise(results)]
    return [line[a:b].strip() for a, b in itertools.pairwise((0, *places, len(line)))]


def _place(line: str, start: int, end: int) -> int:
    """Where to cut between a result that ends at `start` and one that begins at `end`: late, by the best kind."""
    for cut in _CUTS:
        if found := list(cut.finditer(line, start, end)):
            return found[-1].end()
    return start
