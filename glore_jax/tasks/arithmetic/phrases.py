"""Sentence patterns: how a quantity is stated and asked for.

`{A}` is the person whose quantity is stated, `{x}` its thing, `{n}` a number, `{r}` and `{s}` are the persons
whose quantities it refers to; nobody has more than one.
Sentences are short and of one build, person, verb, person, one word, number or person: a small model finds what
stands at a fixed distance from a name much sooner than what does not.
Questions are `ask_*`.
"""

PATTERNS: dict[str, tuple[str, ...]] = {
    "given": (
        "{A} has {n} {x}.",
        "{A} owns {n} {x}.",
        "{A} keeps {n} {x}.",
        "{A} holds {n} {x}.",
        "{A} finds {n} {x}.",
        "{A} counts {n} {x}.",
    ),
    "more": (
        "{A} has {r} plus {n} {x}.",
        "{A} owns {r} plus {n} {x}.",
        "{A} keeps {r} and {n} more {x}.",
        "{A} holds {r} with {n} more {x}.",
        "{A} needs {r} plus {n} extra {x}.",
    ),
    "fewer": (
        "{A} has {r} minus {n} {x}.",
        "{A} owns {r} minus {n} {x}.",
        "{A} keeps {r} without {n} {x}.",
        "{A} holds {r} less {n} {x}.",
        "{A} needs {r} lacking {n} {x}.",
    ),
    "times": (
        "{A} has {r} times {n} in {x}.",
        "{A} owns {r} times {n} in {x}.",
        "{A} keeps {r} multiplied {n} times in {x}.",
        "{A} holds {r} repeated {n} times in {x}.",
    ),
    "half": (
        "{A} has {r} halved in {x}.",
        "{A} owns {r} halved in {x}.",
        "{A} keeps {r} split into halves of {x}.",
        "{A} holds {r} divided in two {x}.",
    ),
    "sum": (
        "{A} has {r} joining {s} in {x}.",
        "{A} owns {r} beside {s} in {x}.",
        "{A} keeps {r} and {s} in {x}.",
        "{A} holds {r} with {s} in {x}.",
    ),
    "difference": (
        "{A} has {r} against {s} in {x}.",
        "{A} owns {r} versus {s} in {x}.",
        "{A} keeps {r} opposite {s} in {x}.",
    ),
    "left": (
        "{A} gets {r} except {n} {x}.",
        "{A} takes {r} but {n} {x}.",
        "{A} saves {r} losing {n} {x}.",
        "{A} receives {r} missing {n} {x}.",
    ),
    "cost": (
        "{A} pays {r} at {n} dollars each.",
        "{A} spends {r} at {n} dollars each.",
        "{A} asks {r} for {n} dollars each.",
        "{A} charges {r} for {n} dollars each.",
    ),
    "ask": (
        "How many {x} does {A} have?",
        "What is the number of {x} of {A}?",
        "Find the {x} of {A}.",
    ),
    "ask_left": (
        "How many {x} are left for {A}?",
        "How many {x} does {A} get?",
    ),
    "ask_cost": (
        "How many dollars is it for {A}?",
        "What is the price for {A}?",
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
