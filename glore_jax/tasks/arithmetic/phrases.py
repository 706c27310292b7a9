"""Sentence patterns: how a quantity is stated and asked for.

`{A}` and `{B}` are persons, `{x}` and `{y}` things, `{n}` a number, `{r}` and `{s}` references to
other quantities ("Ben's apples"). Questions are `ask_*`.
"""

PATTERNS: dict[str, tuple[str, ...]] = {
    "given": (
        "{A} has {n} {x}.",
        "{A} owns {n} {x}.",
        "{A} starts with {n} {x}.",
        "{A} has exactly {n} {x}.",
        "There are {n} {x} in the bag of {A}.",
        "{A} keeps {n} {x} at home.",
    ),
    "more": (
        "{A} has {n} more {x} than {r}.",
        "{A} owns {n} {x} more than {r}.",
        "The {x} of {A} are {n} more than {r}.",
        "{A} needs to lose {n} {x} to match {r}.",
        "{A} counts {x}: {n} more than {r}.",
    ),
    "fewer": (
        "{A} has {n} fewer {x} than {r}.",
        "{A} owns {n} {x} less than {r}.",
        "The {x} of {A} are {n} fewer than {r}.",
        "{A} lacks {n} {x} to match {r}.",
        "{A} counts {x}: {n} fewer than {r}.",
    ),
    "times": (
        "{A} has {n} times as many {x} as {r}.",
        "{A} owns {n} times the number of {r} in {x}.",
        "The {x} of {A} are {n} times {r}.",
        "For each of {r} there are {n} {x} with {A}.",
        "{A} counts {x}: {n} times {r}.",
    ),
    "half": (
        "{A} has half as many {x} as {r}.",
        "{A} owns half the number of {r} in {x}.",
        "The {x} of {A} are half of {r}.",
        "{A} counts {x}: half of {r}.",
    ),
    "sum": (
        "{A} has as many {x} as {r} and {s} together.",
        "{A} owns {x} to match {r} plus {s}.",
        "The {x} of {A} are {r} and {s} combined.",
        "{A} counts {x}: the sum of {r} and {s}.",
    ),
    "difference": (
        "{A} has as many {x} as the difference between {r} and {s}.",
        "{A} owns {x} to match the gap between {r} and {s}.",
        "The {x} of {A} are the difference of {r} and {s}.",
        "{A} counts {x}: the gap between {r} and {s}.",
    ),
    "left": (
        "{A} gives away {n} of the {x}.",
        "{A} loses {n} of the {x}.",
        "{A} sells {n} of the {x}.",
        "Then {n} of the {x} of {A} break.",
        "{A} hands {n} of the {x} to a friend.",
    ),
    "cost": (
        "{A} pays {n} dollars for each of the {x}.",
        "Each of the {x} costs {A} {n} dollars.",
        "The price of the {x} of {A} is {n} dollars each.",
        "{A} buys the {x} at {n} dollars each.",
    ),
    "ask": (
        "How many {x} does {A} have?",
        "How many {x} are with {A}?",
        "What is the number of {x} of {A}?",
    ),
    "ask_left": (
        "How many {x} does {A} have left?",
        "How many of the {x} does {A} still have?",
    ),
    "ask_cost": (
        "How many dollars does {A} pay for the {x}?",
        "What do the {x} cost {A} in dollars?",
    ),
    "ask_total": (
        "How many are {r} and {s} in total?",
        "What do {r} and {s} make together?",
        "What is the total of {r} and {s}?",
    ),
}


def count() -> int:
    """How many sentence patterns there are."""
    return sum(len(patterns) for patterns in PATTERNS.values())
