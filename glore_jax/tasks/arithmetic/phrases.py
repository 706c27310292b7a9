"""Sentence patterns: how a quantity is stated and asked for.

`{A}` is the person whose quantity is stated, `{x}` its thing, `{n}` a number, `{r}` and `{s}` are the persons
whose quantities it refers to; nobody has more than one.
Sentences are short and of one build: a person, a verb, then a number; or a person, a verb, another person, two
words, then a number or a third person. What belongs to a name stands at distances that nothing else has (2 from
its owner, 1 and 3 from the person referred to): a small model finds it much sooner than in free order.
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
        "{A} has {r} plus another {n} {x}.",
        "{A} owns {r} plus exactly {n} {x}.",
        "{A} keeps {r} and another {n} {x}.",
        "{A} holds {r} with still {n} more {x}.",
        "{A} needs {r} plus some {n} extra {x}.",
    ),
    "fewer": (
        "{A} has {r} minus just {n} {x}.",
        "{A} owns {r} minus exactly {n} {x}.",
        "{A} keeps {r} without those {n} {x}.",
        "{A} holds {r} less some {n} {x}.",
        "{A} needs {r} lacking just {n} {x}.",
    ),
    "times": (
        "{A} has {r} times just {n} in {x}.",
        "{A} owns {r} times exactly {n} in {x}.",
        "{A} keeps {r} multiplied by {n} in {x}.",
        "{A} holds {r} repeated exactly {n} times in {x}.",
    ),
    "half": (
        "{A} has {r} halved in {x}.",
        "{A} owns {r} halved in {x}.",
        "{A} keeps {r} split into halves of {x}.",
        "{A} holds {r} divided in two {x}.",
    ),
    "sum": (
        "{A} has {r} joining with {s} in {x}.",
        "{A} owns {r} together with {s} in {x}.",
        "{A} keeps {r} and also {s} in {x}.",
        "{A} holds {r} along with {s} in {x}.",
    ),
    "difference": (
        "{A} has {r} set against {s} in {x}.",
        "{A} owns {r} compared with {s} in {x}.",
        "{A} keeps {r} measured against {s} in {x}.",
    ),
    "left": (
        "{A} gets {r} except those {n} {x}.",
        "{A} takes {r} but not {n} {x}.",
        "{A} saves {r} losing just {n} {x}.",
        "{A} receives {r} missing exactly {n} {x}.",
    ),
    "cost": (
        "{A} pays {r} at just {n} dollars each.",
        "{A} spends {r} at exactly {n} dollars each.",
        "{A} asks {r} for only {n} dollars each.",
        "{A} charges {r} for exactly {n} dollars each.",
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
