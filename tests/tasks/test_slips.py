"""Slipped solutions: one step is false, and the later ones carry its value on consistently."""

from __future__ import annotations

import functools
import random
import re
from collections import Counter

import numpy as np
from handmade import EVEN_WEIGHTS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glore_jax.records import Problem
from glore_jax.tasks.arithmetic import first_false_step, make_problem, phrases
from glore_jax.tasks.arithmetic.corpus import Document, make_document
from glore_jax.tasks.arithmetic.generator import split_of
from glore_jax.tasks.arithmetic.quantities import SYMBOL, Quantity, World, apply_symbol, parts_of
from glore_jax.tasks.arithmetic.slips import slip_lines

STEP = re.compile(r"(\w+) = (\w+) ([-+*/]) (\w+):(?: \d+:)? <<(\d+)([-+*/])(\d+)=(\d+)>>(?: \1 (\d+))?")
GIVEN = re.compile(r"(\w+) (\d+)")
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
    assert [line.split()[0] for line in lines[:-1]] == [line.split()[0] for line in gold[:-1]]

    world = World.from_json(problem(index).facts)
    table = world.by_label()
    carried: dict[str, int] = {}  # what this solution has said so far
    parts: list[int] = []  # of the product that it is working out
    relation = ("", "")  # which it keeps until it has the whole, be it false
    for i, line in enumerate(lines[:-1]):
        stated = GIVEN.fullmatch(line)
        if stated is not None:
            carried[stated[1]] = int(stated[2])
            assert table[stated[1]].kind == "given"
            assert 0 < carried[stated[1]] <= 5999
            assert (carried[stated[1]] == table[stated[1]].value) == (i != false)
            continue
        step = STEP.fullmatch(line)
        assert step is not None
        label, first, spoken, second = step.group(1, 2, 3, 4)
        a, symbol, b, result = int(step[5]), step[6], int(step[7]), int(step[8])
        assert step[9] in (step[8], None)
        assert 0 < result <= 5999
        joins = len(parts) == 2
        assert symbol == ("+" if joins else spoken)
        if i != false:  # true arithmetic of what this very solution says its operands are
            quantity = table[label]
            constants = [] if quantity.constant is None else [quantity.constant]
            if parts:
                assert (first, second) == relation
            else:
                assert sorted((first, second)) == sorted((*quantity.operands, *map(str, constants)))
            said = [carried[term] if term in carried else int(term) for term in (first, second)]
            if joins:
                said = parts
            elif step[9] is None:
                said = [parts_of(said[0])[len(parts)], said[1]]
            assert [a, b] == (sorted(said, reverse=True) if quantity.kind == "difference" else said)
            assert spoken == SYMBOL[quantity.kind]
            assert apply_symbol(symbol, a, b) == result
        relation = (first, second)
        if step[9] is None:
            parts.append(result)
        else:
            carried[label], parts = result, []
    assert lines[-1] == f"#### {carried[world.target]}"


@properties
@given(st.integers(0, 200), st.integers(0, 10**6))
def test_a_slip_depends_on_its_random_state_alone(index: int, seed: int):
    assert slip(index, seed) == slip(index, seed)


def test_a_slip_on_a_givens_line_is_found_there_and_carried_on():
    """Ann has 7 nuts and Ben 3 more: a solution that reads another 7 goes on from it, and ends wrong."""
    ann, ben = Quantity("Ann", "nuts", "given", (), 7, 7), Quantity("Ben", "nuts", "more", ("Ann",), 3, 10)
    world = World((ann, ben), "Ben")
    gold = ["Ann 7", "Ben = Ann + 3: <<7+3=10>> Ben 10", "#### 10"]
    slipped = {tuple(lines) for seed in range(200) if (lines := slip_lines(world, gold, random.Random(seed)))}
    misread = {lines for lines in slipped if lines[0] != gold[0]}
    read = (3, 5, 6, 8, 9)  # the other number of the question, or off by 1 or 2
    assert misread == {(f"Ann {n}", f"Ben = Ann + 3: <<{n}+3={n + 3}>> Ben {n + 3}", f"#### {n + 3}") for n in read}
    assert {first_false_step(world.to_json(), lines) for lines in misread} == {0}
    assert {first_false_step(world.to_json(), lines) for lines in slipped - misread} == {1}


def slip_kind(index: int, lines: list[str]) -> str:
    false = first_false_step(problem(index).facts, lines)
    if GIVEN.fullmatch(lines[false]):
        return "given"
    mine, gold = (STEP.fullmatch(solution[false]) for solution in (lines, problem(index).solution.split("\n")))
    assert mine is not None and gold is not None
    if mine[2] != gold[2]:
        return "source"
    if mine[3] != gold[3]:
        return "symbol"
    return "constant" if mine[4] != gold[4] else "result"


def test_slips_are_of_every_kind_and_at_every_place():
    slipped = [(i, lines) for i in range(100) for seed in range(6) if (lines := slip(i, 6 * i + seed)) is not None]
    assert len(slipped) > 300
    kinds = Counter(slip_kind(i, lines) for i, lines in slipped)
    assert min(kinds[k] for k in ("given", "source", "symbol", "constant", "result")) > 20
    places = Counter(first_false_step(problem(i).facts, lines) for i, lines in slipped)
    assert set(places) >= set(range(10))
    assert max(places) > 8  # after eight computations and their givens


def test_a_misread_given_mostly_is_another_number_of_the_question():
    theirs, misread = 0, 0
    for i in range(100):
        world = World.from_json(problem(i).facts)
        for seed in range(12):
            lines = slip(i, 12 * i + seed)
            if lines is None:
                continue
            given = GIVEN.fullmatch(lines[first_false_step(problem(i).facts, lines)])
            if given is not None:
                misread += 1
                theirs += int(given[2]) in {q.constant for q in world.quantities if q.label != given[1]}
    assert misread > 100
    assert 0.6 < theirs / misread < 1  # the others are off by a little


def documents(revised_share: float, notes_share: float = 0.0, count: int = 300) -> list[tuple[Problem, Document]]:
    return [(problem(i), make_document(2, i, EVEN_WEIGHTS, revised_share, notes_share)) for i in range(count)]


def test_a_document_is_a_solved_problem_of_the_corpus():
    for made, document in documents(0.0, count=30):
        assert document == Document(made.question, (), tuple(made.solution.split("\n")))


def test_first_attempts_are_mostly_wrong_and_never_marked():
    attempts = [(made, document.attempt) for made, document in documents(1.0) if document.attempt]
    assert len(attempts) > 200  # some slips lead out of the numbers that solutions hold
    right = sum(first_false_step(made.facts, attempt) < 0 for made, attempt in attempts)
    assert 0.08 < right / len(attempts) < 0.3
    shared = sum(bool(document.attempt) for _, document in documents(0.3))
    assert 0.15 < shared / 300 < 0.35


def is_notes(document: Document) -> bool:
    return not document.solution[-1].startswith("####")


def test_notes_are_true_of_everybody_in_their_story():
    """Each statement says what its line says, and the lines compute what they say."""
    sizes, told_in_order, few_kinds, last_used = set(), 0, 0, []
    for _, document in documents(1.0, 1.0, count=200):
        assert not document.attempt
        sentences = re.findall(r"[^.?]+[.?]", document.question)
        told = {s.split()[0]: s for s in sentences}
        assert len(told) == len(sentences), "a statement of each, and nothing else: no question"
        value: dict[str, int] = {}
        kinds = []
        for line in document.solution:
            stated, step = GIVEN.fullmatch(line), STEP.fullmatch(line)
            if step and step[9] is None:  # a part of a product
                continue
            label, terms = (stated or step)[1], [stated[2]] if stated else [step[2], step[4]]
            words = re.findall(r"\w+", told[label])
            assert [w for w in words[1:] if w in told] == [t for t in terms if t in told]
            halved = step is not None and step[3] == "/"
            assert [w for w in words if w.isdigit()] == [t for t in terms if t.isdigit() and not halved]
            if step:
                numbers = [value[t] if t in value else int(t) for t in terms]
                at_once = step[3] == step[6]
                by_parts = [part * numbers[1] for part in parts_of(numbers[0])]
                assert [int(step[5]), int(step[7])] == (numbers if at_once else by_parts)
                assert apply_symbol(step[3], *numbers) == int(step[8]) == int(step[9])
                kinds.append(step[3])
                last_used.append(list(value)[-1] in terms)
            value[label] = int((stated or step)[2 if stated else 8])
        assert set(value) == set(told)
        sizes.add(len(value))
        few_kinds += len(kinds) > 2 and len(set(kinds)) == 1
        told_in_order += list(told) == list(value)
    assert sizes == {2, 3, 4, 5, 6, 7, 8}
    assert told_in_order < 60
    assert few_kinds > 20  # where all signs are alike, only the name tells whose number it is
    assert 0.2 < np.mean(last_used) < 0.6  # nor does the line before tell whom a line refers to


def kind_of(sentence: str) -> str:
    """The kind of quantity that a statement states, by its pattern."""
    parts = {"A": "[A-Z]\\w+", "r": "[A-Z]\\w+", "s": "[A-Z]\\w+", "n": "\\d+", "x": "[a-z]+"}
    (kind,) = {
        kind
        for kind, patterns in phrases.PATTERNS.items()
        for pattern in patterns
        if re.fullmatch(pattern.replace(".", "[.]").format(**parts), sentence)
    }
    return kind


def test_nobodys_number_in_notes_is_a_problem_of_another_split():
    deep = 0
    for _, document in documents(0.0, 1.0, count=300):
        told = {s.split()[0]: s.strip() for s in re.findall(r"[^.?]+[.?]", document.question)}
        quantities: list[Quantity] = []
        for line in document.solution:
            if line.endswith(">>"):
                continue
            label, *terms = line.split(":")[0].replace(" =", "").split()
            names = tuple(t for t in terms if t in told)
            number = next((int(t) for t in terms if t.isdigit()), None)
            quantities.append(Quantity(label, "", kind_of(told[label]), names, number, int(line.split()[-1])))
            world = World(tuple(quantities), label)
            if len(world.needed()) >= 2:
                deep += 1
                assert split_of(world) == "corpus"
    assert deep > 100


def test_the_shares_of_notes_and_of_first_attempts_are_kept():
    assert not any(is_notes(document) for _, document in documents(0.5, 0.0))
    assert all(is_notes(document) for _, document in documents(0.5, 1.0))
    mixed = [document for _, document in documents(1.0, 0.4)]
    notes = [document for document in mixed if is_notes(document)]
    assert 0.3 < len(notes) / 300 < 0.5
    rest = [document for document in mixed if not is_notes(document)]
    assert sum(bool(document.attempt) for document in rest) > 0.6 * len(rest)  # of the rest, less what slips lose
    assert not any(document.attempt for document in notes)


def test_a_document_depends_on_seed_and_index_alone():
    assert documents(0.5, 0.5, count=50) == documents(0.5, 0.5, count=50)
    assert make_document(2, 0, EVEN_WEIGHTS, 0.0, 1.0) != make_document(3, 0, EVEN_WEIGHTS, 0.0, 1.0)
    assert len({document for _, document in documents(0.0, 1.0)}) == 300
