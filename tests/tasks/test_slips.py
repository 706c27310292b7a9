"""Slipped solutions: one step is false, and the later ones carry its value on consistently."""

from __future__ import annotations

import functools
import random
import re
from collections import Counter

from handmade import EVEN_WEIGHTS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glore_jax.records import Problem
from glore_jax.tasks.arithmetic import first_false_step, make_problem
from glore_jax.tasks.arithmetic.corpus import Document, make_document
from glore_jax.tasks.arithmetic.quantities import SYMBOL, World, apply_symbol
from glore_jax.tasks.arithmetic.slips import slip_lines

STEP = re.compile(r"(\w+) ([-+*/]) (\w+) = (\w+): <<(\d+)([-+*/])(\d+)=(\d+)>>(\d+)")
properties = settings(max_examples=200, deadline=None)


@functools.cache
def problem(index: int) -> Problem:
    return make_problem(2, "corpus", index, EVEN_WEIGHTS)


def slip(index: int, seed: int) -> list[str] | None:
    made = problem(index)
    return slip_lines(World.from_json(made.facts), made.solution.split("\n"), random.Random(seed))


@properties
@given(st.integers(0, 200), st.integers(0, 10**6))
def test_one_step_is_false_and_what_follows_is_consistent(index: int, seed: int):
    lines = slip(index, seed)
    assume(lines is not None)
    assert lines is not None
    gold = problem(index).solution.split("\n")
    false = first_false_step(problem(index).facts, lines)
    assert 0 <= false < len(lines) - 1, "there is a false step, and it is no answer line"
    assert lines[:false] == gold[:false]
    assert [line.split()[4] for line in lines[:-1]] == [line.split()[4] for line in gold[:-1]]

    world = World.from_json(problem(index).facts)
    table = world.by_label()
    carried = {q.label: q.value for q in world.quantities if q.kind == "given"}
    for i, line in enumerate(lines[:-1]):
        step = STEP.fullmatch(line)
        assert step is not None
        first, spoken, second, label = step.group(1, 2, 3, 4)
        a, symbol, b, result = int(step[5]), step[6], int(step[7]), int(step[8])
        assert spoken == symbol
        assert step[8] == step[9]
        assert 0 < result <= 199
        if i != false:  # true arithmetic of what this very solution says its operands are
            quantity = table[label]
            constants = [] if quantity.constant is None else [quantity.constant]
            assert sorted((first, second)) == sorted((*quantity.operands, *map(str, constants)))
            said = [carried[term] if term in carried else int(term) for term in (first, second)]
            assert [a, b] == (sorted(said, reverse=True) if quantity.kind == "difference" else said)
            assert symbol == SYMBOL[quantity.kind]
            assert apply_symbol(symbol, a, b) == result
        carried[label] = result
    assert lines[-1] == f"#### {carried[world.target]}"


@properties
@given(st.integers(0, 200), st.integers(0, 10**6))
def test_a_slip_depends_on_its_random_state_alone(index: int, seed: int):
    assert slip(index, seed) == slip(index, seed)


def slip_kind(index: int, lines: list[str]) -> str:
    false = first_false_step(problem(index).facts, lines)
    mine, gold = (STEP.fullmatch(solution[false]) for solution in (lines, problem(index).solution.split("\n")))
    assert mine is not None and gold is not None
    if mine[1] != gold[1]:
        return "source"
    if mine[2] != gold[2]:
        return "symbol"
    return "constant" if mine[3] != gold[3] else "result"


def test_slips_are_of_every_kind_and_at_every_place():
    slipped = [(i, lines) for i in range(100) for seed in range(6) if (lines := slip(i, 6 * i + seed)) is not None]
    assert len(slipped) > 300
    kinds = Counter(slip_kind(i, lines) for i, lines in slipped)
    assert min(kinds[k] for k in ("source", "symbol", "constant", "result")) > 20
    places = Counter(first_false_step(problem(i).facts, lines) for i, lines in slipped)
    assert set(places) == set(range(8))


def documents(revised_share: float, count: int = 300) -> list[tuple[Problem, Document]]:
    return [(problem(i), make_document(2, i, EVEN_WEIGHTS, revised_share)) for i in range(count)]


def test_a_document_is_a_solved_problem_of_the_corpus():
    for made, document in documents(0.0, 30):
        assert document == Document(made.question, (), tuple(made.solution.split("\n")))


def test_first_attempts_are_mostly_wrong_and_never_marked():
    attempts = [(made, document.attempt) for made, document in documents(1.0) if document.attempt]
    assert len(attempts) > 200  # some slips lead out of the numbers that solutions hold
    right = sum(first_false_step(made.facts, attempt) < 0 for made, attempt in attempts)
    assert 0.08 < right / len(attempts) < 0.3
    shared = sum(bool(document.attempt) for _, document in documents(0.3))
    assert 0.15 < shared / 300 < 0.35
