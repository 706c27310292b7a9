"""The oracle: gold is right, whatever is changed is found where it was changed, other right ways are right."""

from __future__ import annotations

import functools
import random
import re

import pytest
from handmade import EVEN_WEIGHTS
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from glore_jax.records import Problem
from glore_jax.tasks.arithmetic import first_false_step, make_problem
from glore_jax.tasks.arithmetic.generator import step_text
from glore_jax.tasks.arithmetic.oracle import fault
from glore_jax.tasks.arithmetic.quantities import NAMES, SYMBOL, Quantity, World, apply_symbol, numbers_of

INDICES = st.integers(0, 999)
properties = settings(max_examples=150, deadline=None)


@functools.cache
def problem(index: int) -> Problem:
    return make_problem(5, "test", index, EVEN_WEIGHTS)


def lines_of(index: int) -> list[str]:
    return problem(index).solution.split("\n")


def judge(index: int, lines: list[str]) -> int:
    return first_false_step(problem(index).facts, lines)


def parts(line: str) -> list[str]:
    """Of a computing line: label, first and second source with the operation between, both numbers, the equation."""
    found = re.fullmatch(r"(\w+) = (\w+) ([-+*/]) (\w+): (?=<<(\d+)[-+*/](\d+)=)(<<.*)", line)
    assert found is not None
    return list(found.groups())


def computing(lines: list[str]) -> list[int]:
    """The indices of the lines that compute a quantity at once: no givens, no parts of a product, no answer line."""
    labels = [line.split()[0] for line in lines]
    return [i for i, line in enumerate(lines) if "<<" in line and labels.count(labels[i]) == 1]


# Ann has 7 nuts. Ben has 3 more nuts than Ann. Cara has as many nuts as Ann plus Ben. Dan has half as many nuts as Ben.
# Eva pays 2 dollars for each of Dan's nuts. Finn has as many nuts as the difference of Ann and Cara. Gina gets all but
# 4 nuts of Cara. Hal has 24 nuts. Ivy has 7 times as many nuts as Hal.
ANN = Quantity("Ann", "nuts", "given", (), 7, 7)
BEN = Quantity("Ben", "nuts", "more", ("Ann",), 3, 10)
CARA = Quantity("Cara", "nuts", "sum", ("Ann", "Ben"), None, 17)
DAN = Quantity("Dan", "nuts", "half", ("Ben",), 2, 5)
EVA = Quantity("Eva", "dollars", "cost", ("Dan",), 2, 10)
FINN = Quantity("Finn", "nuts", "difference", ("Cara", "Ann"), None, 10)
GINA = Quantity("Gina", "nuts", "left", ("Cara",), 4, 13)
HAL = Quantity("Hal", "nuts", "given", (), 24, 24)
IVY = Quantity("Ivy", "nuts", "times", ("Hal",), 7, 168)
WORLD = World((ANN, BEN, CARA, DAN, EVA, FINN, GINA, HAL, IVY), "Eva")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Ben = Ann + 3: <<7+3=10>> Ben 10", None),
        ("Ben = Ann + 3: <<3+7=10>> Ben 10", None),  # a sum may be swapped, in its numbers
        ("Ben = 3 + Ann: <<7+3=10>> Ben 10", None),  # or in its names
        ("Ben = 3 + Ann: <<3+7=10>> Ben 10", None),  # or in both
        ("Eva = Dan * 2: <<2*5=10>> Eva 10", None),  # a product too
        ("Eva = 2 * Dan: <<5*2=10>> Eva 10", None),
        ("Dan = Ben / 2: <<10/2=5>> Dan 5", None),
        ("Gina = Cara - 4: <<17-4=13>> Gina 13", None),
        ("Cara = Ann + Ben: <<7+10=17>> Cara 17", None),  # true, though not needed
        ("Cara = Ben + Ann: <<7+10=17>> Cara 17", None),
        ("Finn = Ann - Cara: <<17-7=10>> Finn 10", None),  # a difference may name them in any order
        ("Finn = Cara - Ann: <<17-7=10>> Finn 10", None),
        ("#### 10", None),
        ("Finn = Ann - Cara: <<7-17=10>> Finn 10", "wrong operand"),  # but the larger number comes first
        ("Finn = Cara - Ann: <<7-17=10>> Finn 10", "wrong operand"),
        ("Gina = 4 - Cara: <<17-4=13>> Gina 13", "wrong operand"),  # what is left is no difference
        ("Gina = Cara - 4: <<4-17=13>> Gina 13", "wrong operand"),
        ("Dan = 2 / Ben: <<10/2=5>> Dan 5", "wrong operand"),
        ("Dan = Ben / 2: <<2/10=5>> Dan 5", "wrong operand"),
        ("Ben = Ann + 4: <<7+4=11>> Ben 11", "wrong operand"),
        ("Ben = Ann + 4: <<7+3=10>> Ben 10", "wrong operand"),  # the relation counts as well
        ("Ben = Ann + 3: <<7+4=11>> Ben 11", "wrong operand"),  # and so do the numbers
        ("Ben = Ann + 3: <<8+2=10>> Ben 10", "wrong operand"),  # the right result from wrong numbers
        ("Dan = Ben - 5: <<10-5=5>> Dan 5", "wrong operand"),  # the right result by another operation
        ("Ben = Ann * 3: <<7*3=21>> Ben 21", "wrong operand"),
        ("Ben = Ann * 3: <<7+3=10>> Ben 10", "wrong operand"),  # two operations in one step
        ("Ben = Ann + 3: <<7*3=21>> Ben 21", "wrong operand"),
        ("Ben = Cara + 3: <<7+3=10>> Ben 10", "wrong operand"),  # the right numbers from somebody else
        ("Dan = Eva / 2: <<10/2=5>> Dan 5", "wrong operand"),  # Eva has 10 as well, but it is Ben's that counts
        ("Cara = Ann + 10: <<7+10=17>> Cara 17", "wrong operand"),  # Ben's name must stand there
        ("Ben = 7 + 3: <<7+3=10>> Ben 10", "wrong operand"),
        ("Cara = Ann + Ann: <<7+10=17>> Cara 17", "wrong operand"),
        ("Ben = Ann + Cara: <<7+3=10>> Ben 10", "wrong operand"),
        ("Ben = Ann + Ann: <<7+3=10>> Ben 10", "wrong operand"),
        ("Ben = Ann + 3: <<7+3=11>> Ben 11", "wrong computation"),
        ("Ben = Ann + 3: <<7+3=10>> Ben 11", "wrong computation"),
        ("Ben = Ann + 3: <<7+3=11>> Ben 10", "wrong computation"),
        ("Hugo = Ann + 3: <<7+3=10>> Hugo 10", "wrong quantity"),
        ("Total = Ann + 3: <<7+3=10>> Total 10", "wrong quantity"),  # nobody asks for a total here
        ("Ann = Ann + 0: <<7+0=7>> Ann 7", "wrong quantity"),  # given, so there is nothing to compute
        ("10 = Ann + 3: <<7+3=10>> 10 10", "wrong quantity"),
        ("Ben = Ann + 3: <<7+3=10>> Ann 10", "wrong quantity"),
        ("Dan = Ann + 3: <<7+3=10>> Dan 10", "wrong operand"),  # Ben's step under Dan's name
        ("#### 11", "wrong answer"),
        ("#### 1", "wrong answer"),
        ("", "unreadable"),
        ("####", "unreadable"),
        ("#### 10 dollars", "unreadable"),
        ("#### 10 #### 10", "unreadable"),
        ("Ben = Ann + 3: 7+3=10", "unreadable"),
        ("Ben = Ann + 3: 10", "unreadable"),
        ("Ben: <<7+3=10>> Ben 10", "unreadable"),
        ("Ben = Ann: <<7+3=10>> Ben 10", "unreadable"),
        ("Ben = Ann + : <<7+3=10>> Ben 10", "unreadable"),
        ("Cara = Ann + Ben + Dan: <<7+10=17>> Ben 17", "unreadable"),
        ("Ben = Ann + 3: <<7+3=10>>10", "unreadable"),
        ("Ben = Ann + 3: <<7+3=10>> Ben 10 nuts", "unreadable"),
        ("Ben = Ann + 3: <<7+3=10>> Ben 10 #### 10", "unreadable"),
        ("Ben = Ann + 3 <<7+3=10>> Ben 10", "unreadable"),
        ("Ben = Ann+3: <<7+3=10>> Ben 10", "unreadable"),
        ("Ben = Ann + 3: <<7+3+0=10>> Ben 10", "unreadable"),
        ("Ben = Ann + -3: <<7+-3=10>> Ben 10", "unreadable"),
        ("Ben = Ann + 3: <<7+3=10.0>> Ben 10.0", "unreadable"),
        (" = Ann + 3: <<7+3=10>> Ben 10", "unreadable"),
        ("Ann + 3 = Ben: <<7+3=10>> Ben 10", "unreadable"),  # the label comes first
        ("so Ben has 10", "unreadable"),
        # A product by parts: of Hal's 24 the tens and the ones, each 7 times, then both together.
        ("Ivy = Hal * 7: <<20*7=140>>", None),
        ("Ivy = Hal * 7: 24: <<20*7=140>>", None),  # saying of what they are the tens
        ("Ivy = Hal * 7: 25: <<20*7=140>>", "wrong operand"),
        ("Ivy = Hal * 7: 24: <<24*7=168>> Ivy 168", "wrong operand"),
        ("Ben = Ann + 3: 7: <<7+3=10>> Ben 10", "wrong operand"),
        ("Ivy = Hal * 7: <<4*7=28>>", None),
        ("Ivy = 7 * Hal: <<7*4=28>>", None),
        ("Ivy = Hal * 7: <<140+28=168>> Ivy 168", None),
        ("Ivy = Hal * 7: <<28+140=168>> Ivy 168", None),
        ("Ivy = Hal * 7: <<24*7=168>> Ivy 168", None),
        ("Ivy = Hal * 7: <<20*7=150>>", "wrong computation"),
        ("Ivy = Hal * 7: <<140+28=158>> Ivy 158", "wrong computation"),
        ("Ivy = Hal * 7: <<140+28=168>> Ivy 158", "wrong computation"),
        ("Ivy = Hal * 7: <<24*7=168>>", "wrong operand"),  # that is the whole, and it ends with Ivy's value
        ("Ivy = Hal * 7: <<20*7=140>> Ivy 140", "wrong operand"),  # and this is not
        ("Ivy = Hal * 7: <<10*7=70>>", "wrong operand"),
        ("Ivy = Hal * 7: <<20*6=120>>", "wrong operand"),
        ("Ivy = Hal * 7: <<20+7=27>>", "wrong operand"),
        ("Ivy = Hal * 7: <<140+28=168>>", "wrong operand"),
        ("Ivy = Hal * 7: <<140*28=3920>> Ivy 3920", "wrong operand"),
        ("Ivy = Hal * 7: <<140+30=170>> Ivy 170", "wrong operand"),
        ("Ivy = Hal + 7: <<20*7=140>>", "wrong operand"),
        ("Ivy = Ann * 7: <<20*7=140>>", "wrong operand"),
        ("Hal = Ann * 7: <<20*7=140>>", "wrong quantity"),
        ("Eva = Dan * 2: <<5*2=10>>", "wrong operand"),  # 5 has no tens
        ("Eva = Dan * 2: <<0*2=0>>", "wrong operand"),
        ("Ben = Ann + 3: <<7+3=10>>", "wrong operand"),  # nor is a sum worked out by parts
        # Bare statements.
        ("Ann 7", None),  # a given
        ("Ben 10", None),  # a computed quantity said again, or said without its computation
        ("Finn 10", None),
        ("Ann 8", "wrong operand"),
        ("Ann 3", "wrong operand"),  # a number of the problem, but not Ann's
        ("Ben 7", "wrong operand"),
        ("Ben 3", "wrong operand"),  # the constant of its statement is not its value
        ("Hugo 7", "wrong quantity"),
        ("Total 7", "wrong quantity"),
        ("7 7", "wrong quantity"),
        ("7 = Ann", "unreadable"),
        ("Ann = Ann", "unreadable"),
        ("Ann 7 nuts", "unreadable"),
        ("Ann -7", "unreadable"),
        ("Ann 7.0", "unreadable"),
        ("Ann: 7", "unreadable"),
        ("Ann=7", "unreadable"),
        ("Ann = 7", "unreadable"),
        ("Ann = ", "unreadable"),
        ("Ann = <<7>>7", "unreadable"),
        ("Ann 7, Ben 10", "unreadable"),
    ],
)
def test_steps_judged_by_hand(line: str, said: str | None):
    assert fault(WORLD, line) == said


def test_the_first_of_several_false_steps_is_named():
    ben, dan, eva = (
        "Ben = Ann + 3: <<7+3=10>> Ben 10",
        "Dan = Ben / 2: <<10/2=5>> Dan 5",
        "Eva = Dan * 2: <<5*2=10>> Eva 10",
    )
    slip, carried = "Dan = Ben / 2: <<10/2=4>> Dan 4", "Eva = Dan * 2: <<4*2=8>> Eva 8"
    facts = WORLD.to_json()
    assert first_false_step(facts, [ben, dan, eva, "#### 10"]) == -1
    assert first_false_step(facts, [ben, slip, carried, "#### 8"]) == 1
    assert first_false_step(facts, [ben, dan, eva, "#### 9"]) == 3
    assert first_false_step(facts, ["?", dan, "?", "#### 9"]) == 0
    assert first_false_step(facts, [ben, dan]) == -1  # an unfinished solution says nothing false
    assert first_false_step(facts, []) == -1


@properties
@given(INDICES)
def test_its_own_gold_solution_is_right(index: int):
    assert judge(index, lines_of(index)) == -1


@properties
@given(INDICES, st.data())
def test_any_changed_number_is_found_at_its_step(index: int, data: st.DataObject):
    lines = lines_of(index)
    at = data.draw(st.integers(0, len(lines) - 1))
    found = data.draw(st.sampled_from(list(re.finditer(r"\d+", lines[at]))))
    other = data.draw(st.integers(0, 250).filter(lambda n: n != int(found[0])))
    lines[at] = lines[at][: found.start()] + str(other) + lines[at][found.end() :]
    assert judge(index, lines) == at


@pytest.mark.parametrize("index", range(12))
def test_every_changed_digit_is_found_at_its_step(index: int):
    lines = lines_of(index)
    for at, line in enumerate(lines):
        for place in (m.start() for m in re.finditer(r"\d", line)):
            for digit in set("0123456789") - {line[place]}:
                changed = [*lines[:at], line[:place] + digit + line[place + 1 :], *lines[at + 1 :]]
                assert judge(index, changed) == at


@properties
@given(INDICES, st.data())
def test_a_wrong_operation_is_found_even_when_it_is_computed_rightly(index: int, data: st.DataObject):
    gold = lines_of(index)
    at = data.draw(st.sampled_from(computing(gold)))
    label, first, symbol, second, a, b, equation = parts(gold[at])
    other = data.draw(st.sampled_from([s for s in "+-*/" if s != symbol]))
    result = apply_symbol(other, int(a), int(b))
    assume(result is not None and result >= 0)
    computed = f"<<{a}{other}{b}={result}>> {label} {result}"
    for spoken, stated in ((other, computed), (symbol, computed), (other, equation)):
        lines = [*gold[:at], f"{label} = {first} {spoken} {second}: {stated}", *gold[at + 1 :]]
        assert judge(index, lines) == at


@properties
@given(INDICES, st.data())
def test_swapping_numbers_is_right_for_sums_and_products_alone(index: int, data: st.DataObject):
    lines = lines_of(index)
    at = data.draw(st.sampled_from(computing(lines)))
    _, _, symbol, _, a, b, _ = parts(lines[at])
    lines[at] = lines[at].replace(f"<<{a}{symbol}{b}=", f"<<{b}{symbol}{a}=")
    assert judge(index, lines) == (-1 if symbol in "+*" or a == b else at)


@properties
@given(INDICES, st.data())
def test_swapping_names_is_right_for_sums_products_and_differences_alone(index: int, data: st.DataObject):
    lines = lines_of(index)
    at = data.draw(st.sampled_from(computing(lines)))
    label, first, symbol, second, _, _, equation = parts(lines[at])
    lines[at] = f"{label} = {second} {symbol} {first}: {equation}"
    of_two_people = not second.isdigit()
    assert judge(index, lines) == (-1 if symbol in "+*" or of_two_people else at)


@properties
@given(INDICES, st.randoms(use_true_random=False))
def test_another_valid_order_is_right(index: int, rng: random.Random):
    world = World.from_json(problem(index).facts)
    table = world.by_label()
    waiting = [q.label for q in world.quantities if q.kind == "given"] + world.needed()
    known, lines = set[str](), []
    while waiting:
        label = rng.choice([w for w in waiting if known.issuperset(table[w].operands)])
        waiting.remove(label)
        known.add(label)
        lines.append(step_text(table[label], table))
    assert judge(index, [*lines, lines_of(index)[-1]]) == -1


@properties
@given(INDICES)
def test_givens_need_not_be_stated(index: int):
    gold = lines_of(index)
    assert judge(index, [line for line in gold if "<<" in line or line == gold[-1]]) == -1


@properties
@given(INDICES, st.data())
def test_a_bare_statement_is_true_of_the_true_value_alone(index: int, data: st.DataObject):
    table = World.from_json(problem(index).facts).by_label()
    lines = lines_of(index)
    label = data.draw(st.sampled_from([*table, *NAMES]))
    value = data.draw(st.integers(0, 110) | st.sampled_from([q.value for q in table.values()]))
    at = data.draw(st.integers(0, len(lines)))
    lines.insert(at, f"{label} {value}")
    assert judge(index, lines) == (-1 if label in table and table[label].value == value else at)


@properties
@given(INDICES, st.data())
def test_an_unneeded_true_step_is_right(index: int, data: st.DataObject):
    world = World.from_json(problem(index).facts)
    true = [step_text(q, world.by_label()) for q in world.quantities]
    true += [f"{q.label} {q.value}" for q in world.quantities]  # a value said again, or without its computation
    lines = lines_of(index)
    lines.insert(data.draw(st.integers(0, len(lines))), data.draw(st.sampled_from(true)))
    assert judge(index, lines) == -1


@properties
@given(INDICES, st.data())
def test_any_changed_name_is_found_at_its_step(index: int, data: st.DataObject):
    table = World.from_json(problem(index).facts).by_label()
    lines = lines_of(index)
    at = data.draw(st.integers(0, len(lines) - 2))
    names = list(re.finditer(r"[A-Z]\w+", lines[at]))
    place = data.draw(st.integers(0, len(names) - 1))
    found, label = names[place], names[0][0]
    new = data.draw(st.sampled_from([name for name in (*table, *NAMES, "Total") if name != found[0]]))
    if "<<" not in lines[at]:
        assume(new not in table or table[new].value != table[label].value)  # the same statement is true of both
    elif place == 0 and new in table and table[new].kind != "given":
        mine, theirs = table[label], table[new]
        equations = [(SYMBOL[q.kind], sorted(numbers_of(q, table)), sorted(q.operands)) for q in (mine, theirs)]
        assume(equations[0] != equations[1])  # the same step is true of both
    lines[at] = lines[at][: found.start()] + new + lines[at][found.end() :]
    assert judge(index, lines) == at


@properties
@given(INDICES, st.data())
def test_an_unreadable_line_is_found(index: int, data: st.DataObject):
    lines = lines_of(index)
    at = data.draw(st.integers(0, len(lines) - 1))
    line = lines[at]
    place = data.draw(st.sampled_from([i for i, c in enumerate(line) if c in "<>=:#+-*/ "]))
    lines[at] = line[:place] + line[place + 1 :]
    assert judge(index, lines) == at
    lines[at] = data.draw(st.sampled_from([line + " ", " " + line, line + ".", line.replace(" ", "  ", 1), ""]))
    assert judge(index, lines) == at


@properties
@given(INDICES, st.text(max_size=30))
def test_any_text_is_judged(index: int, text: str):
    assert judge(index, [*lines_of(index), text]) in (-1, len(lines_of(index)))
