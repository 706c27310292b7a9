"""Sentence patterns: how a quantity is stated and asked for.

`{A}` is the person whose quantity is stated, `{x}` its thing, `{n}` a number, `{r}` and `{s}` refer to
other quantities: by the person alone where the thing is the same ("Ben"), else in full ("Ben's plums").
Questions are `ask_*`.
"""

PATTERNS: dict[str, tuple[str, ...]] = {
    "given": (
        "{A} has {n} {x}.",
        "{A} owns {n} {x}.",
        "{A} keeps {n} {x}.",
        "{A} holds {n} {x}.",
        "{A} finds {n} {x}.",
        "{A} starts with {n} {x}.",
    ),
    "more": (
        "{A} has {n} more {x} than {r}.",
        "{A} owns {n} more {x} than {r}.",
        "{A} keeps {n} more {x} than {r}.",
        "{A} holds {n} {x} more than {r}.",
        "{A} needs {n} {x} added to {r}.",
    ),
    "fewer": (
        "{A} has {n} fewer {x} than {r}.",
        "{A} owns {n} fewer {x} than {r}.",
        "{A} keeps {n} fewer {x} than {r}.",
        "{A} holds {n} {x} less than {r}.",
        "{A} lacks {n} {x} to match {r}.",
    ),
    "times": (
        "{A} has {n} times as many {x} as {r}.",
        "{A} owns {n} times as many {x} as {r}.",
        "{A} keeps {n} times the {x} of {r}.",
        "{A} holds {n} {x} for each one of {r}.",
    ),
    "half": (
        "{A} has half as many {x} as {r}.",
        "{A} owns half as many {x} as {r}.",
        "{A} keeps half the {x} of {r}.",
        "{A} holds {x} for every second one of {r}.",
    ),
    "sum": (
        "{A} has as many {x} as {r} and {s} together.",
        "{A} owns the {x} of {r} plus {s}.",
        "{A} keeps the {x} of {r} and {s} combined.",
        "{A} holds {x} for the sum of {r} and {s}.",
    ),
    "difference": (
        "{A} has as many {x} as the difference of {r} and {s}.",
        "{A} owns {x} for the gap between {r} and {s}.",
        "{A} keeps {x} by which {r} and {s} differ.",
    ),
    "left": (
        "{A} gets what is left when {n} {x} break of {r}.",
        "{A} takes the {x} left after {n} are lost of {r}.",
        "{A} receives all but {n} {x} of {r}.",
        "{A} saves the {x} that remain when {n} are sold of {r}.",
    ),
    "cost": (
        "{A} pays {n} dollars for each of {r}.",
        "{A} spends {n} dollars on each of {r}.",
        "{A} asks {n} dollars for each of {r}.",
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
