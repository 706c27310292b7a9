"""What a compiled step moves between devices, read from the text of its program (HLO).

A collective in the body of a loop counts as often as the loop turns: XLA's own cost analysis counts it once. The TPU
compiler makes rings of `collective-permute` of some gathers and reductions, so that they hide behind products; these
are then listed as what they are, permutations.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BITS = {"pred": 8, "bf": 16, "s": 0, "u": 0, "f": 0, "c": 0}  # 0: the digits after the letters say it
_ARRAY = re.compile(r"\b(pred|bf|[sufc])(\d*)(?:e\w+)?\[([\d,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_CALLED = re.compile(r"\b(?:calls|to_apply|body)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\b(?:branch_computations=\{([^}]*)\}|(?:true|false)_computation=%?([\w.\-]+))")
_KNOWN_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')


@dataclasses.dataclass(frozen=True)
class Moved:
    """What the collectives of a program move, by kind.

    Attributes:
      bytes: of whole tensors: what a gather makes, what a reduction takes, what is exchanged; times the turns of the
        loops around it.
      sent: that each device sends, of a ring: (n - 1) / n of the tensor among n devices, twice that where it is an
        all-reduce, the whole of what is permuted.
      times: how often.
      endless: loops with collectives in them of whose turns the program says nothing; they count as one turn.
    """

    bytes: dict[str, int]
    sent: dict[str, int]
    times: dict[str, int]
    endless: int


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    root: bool
    type: str
    op: str
    rest: str

    @property
    def operands(self) -> list[str]:
        return re.findall(r"%([\w.\-]+)", self.rest.partition("), ")[0])


def read(text: str) -> Moved:
    """What the collectives of a program move.

    Args:
      text: of an optimised program, as `compiled.as_text()` gives it.
    """
    program = _Program(text)
    total = program.total(program.entry)
    parts = {
        field: {k: round(total[field, k]) for k in KINDS if total[field, k]} for field in ("bytes", "sent", "times")
    }
    return Moved(**parts, endless=round(total["endless", ""]))


class _Program:
    """The computations of a program, and what each moves, those that it calls included."""

    def __init__(self, text: str):
        self.computations: dict[str, list[_Instruction]] = {}
        self.entry = ""
        for header, line in _lines(text):
            if header is not None:
                name = header[2]
                self.computations[name] = []
                self.entry = name if header[1] else self.entry
            elif found := _INSTRUCTION.match(line):
                self.computations[name].append(_Instruction(found[2], bool(found[1]), found[3], found[4], found[5]))
        devices = [int(n) for n in re.findall(r"\b(?:num_partitions|replica_count)=(\d+)", text.partition("\n")[0])]
        self.devices = math.prod(devices)
        self.total = functools.cache(self._total)

    def _total(self, name: str) -> Counter[tuple[str, str]]:
        """Sums by (field of `Moved`, kind)."""
        found: Counter[tuple[str, str]] = Counter()
        if self._goes_on(name):
            return found
        scatters = name.startswith("all-reduce-scatter")  # so a TPU fuses a reduction with the choice of a part of it
        for one in self.computations[name]:
            kind = one.op.removesuffix("-start")
            if kind in KINDS:
                found.update(self._moved(one, "reduce-scatter" if scatters else kind))
                continue
            called = sum((self.total(callee) for callee in _CALLED.findall(one.rest)), Counter())
            if one.op == "while" and called:
                turns = self._turns(name, one)
                called = Counter({key: value * (turns or 1) for key, value in called.items()})
                called["endless", ""] += turns is None
            found.update(called)
            branches = [
                b.strip().lstrip("%") for pair in _BRANCHES.findall(one.rest) for b in ",".join(pair).split(",")
            ]
            for branch in filter(None, branches):  # only one is taken: the most that any moves
                found |= self.total(branch)
        return found

    def _goes_on(self, name: str) -> bool:
        """Whether a fusion goes on with a collective that another has begun, and repeats it to say which.

        A TPU hides some collectives behind products: one fusion starts, some go on while they compute, one is done.
        """
        done = any('custom_call_target="AsyncCollectiveDone"' in one.rest for one in self.computations[name])
        return done or name.startswith("async_collective_fusion")

    def _moved(self, one: _Instruction, kind: str) -> dict[tuple[str, str], float]:
        arrays = [(bits, size) for bits, size in _arrays(one.type)]
        if one.op.endswith("-start") and one.type.startswith("(") and kind != "all-reduce":
            arrays = [a for a in arrays if a != (32, 1)]  # a permutation begun also has two words for itself
            arrays = arrays[len(arrays) // 2 :]  # and of what goes in and what comes out the latter counts
        n = _group(one.rest) or self.devices
        whole = sum(bits * size for bits, size in arrays) / 8
        if one.op.removesuffix("-start") == "reduce-scatter":
            whole *= n
        share = {"all-reduce": 2 * (n - 1) / n, "collective-permute": 1.0}.get(kind, (n - 1) / n)
        return {("bytes", kind): whole, ("sent", kind): whole * share, ("times", kind): 1}

    def _turns(self, caller: str, loop: _Instruction) -> int | None:
        """How often a loop turns that counts up by one to a constant; None where it is another."""
        if known := _KNOWN_TRIPS.search(loop.rest):
            return int(known[1])
        condition = re.search(r"\bcondition=%?([\w.\-]+)", loop.rest)
        inside = {one.name: one for one in self.computations[condition[1]]} if condition else {}
        root = next((one for one in inside.values() if one.root), None)
        if root is None or root.op != "compare":
            return None
        left, right = (inside.get(name) for name in root.operands)
        if "direction=GT" in root.rest:
            left, right = right, left
        elif "direction=LT" not in root.rest:
            return None
        index = re.search(r"\bindex=(\d+)", left.rest) if left is not None and left.op == "get-tuple-element" else None
        end = _constant(right)
        if index is None or end is None:
            return None
        around = {one.name: one for one in self.computations[caller]}
        start = around.get(loop.operands[0])
        if start is None or start.op != "tuple":
            return None
        first = around.get(start.operands[int(index[1])])
        while first is not None and first.op == "copy":
            first = around.get(first.operands[0])
        begin = _constant(first)
        return None if begin is None else end - begin


def _lines(text: str) -> Iterator[tuple[re.Match[str] | None, str]]:
    """The lines of computations, each with the match of its header if it is one."""
    inside = False
    for line in text.splitlines():
        header = _HEADER.match(line)
        inside = (inside or header is not None) and line != "}"
        if inside:
            yield header, line


def _constant(one: _Instruction | None) -> int | None:
    digits = re.match(r"-?\d+", one.rest) if one is not None and one.op == "constant" else None
    return int(digits[0]) if digits else None


def _arrays(shape: str) -> Iterable[tuple[int, int]]:
    """Bits of an element, and elements, of each array of a type."""
    for letters, digits, sizes in _ARRAY.findall(shape):
        yield _BITS[letters] or int(digits), math.prod(int(n) for n in sizes.split(",") if n)


def _group(rest: str) -> int:
    """Devices that exchange with each other; 0 where all do, or pairs are named.

    >>> _group("replica_groups={{0,2},{1,3}}"), _group("replica_groups=[2,8]<=[16]")
    (2, 8)
    >>> _group("replica_groups=mesh['a'=4,'b'=2] {'b'}, dimensions={0}"), _group("replica_groups={}")
    (2, 0)
    """
    if found := re.search(r"replica_groups=\{\{([\d,]*)\}", rest):
        return found[1].count(",") + 1
    if found := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
        return int(found[1])
    if found := re.search(r"replica_groups=@?\w*mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", found[2]))
    return 0
