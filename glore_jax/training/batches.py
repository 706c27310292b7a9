"""Examples, and packing them into rows of one fixed length.

An example is a token sequence with a target and a weight at some positions. Language models and
value models differ only in what the targets mean: the next token, or a probability.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Example:
    """One training sequence.

    Attributes:
      tokens: [T] ids.
      targets: [T] what is learnt at each position; ignored where the weight is 0.
      weights: [T] how much each position counts in the loss.
      source: how many of the tokens were given; what follows was written.
      prefix: length of the source that may be attended to in both directions (0: causal).
      steps: of a value model, [T] at the end of each step its number, from 1; 0 elsewhere.
      id: of the record that it was made of, for whoever has to look at it.
      problem: id of the problem that it is about.
    """

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    source: int
    prefix: int = 0
    steps: np.ndarray | None = None
    id: str = ""
    problem: str = ""

    def __len__(self) -> int:
        return len(self.tokens)


def language_example(
    source: Sequence[int], target: Sequence[int], prefix_lm: bool = False, id: str = "", problem: str = ""
) -> Example:
    """Next-token prediction of `target` after `source`; the loss is on the target alone.

    A prefix LM reads the source in both directions, all but its last token: that one begins the
    writing, and decoding reads it as the first of the causal ones.

    >>> language_example([5, 6], [7, 2]).tokens, language_example([5, 6], [7, 2]).weights
    (array([5, 6, 7], dtype=int32), array([0., 1., 1.], dtype=float32))
    """
    tokens = np.asarray([*source, *target], np.int32)
    weights = np.zeros(len(tokens) - 1, np.float32)
    weights[len(source) - 1 :] = 1.0
    prefix = len(source) - 1 if prefix_lm else 0
    return Example(tokens[:-1], tokens[1:].astype(np.float32), weights, len(source), prefix, id=id, problem=problem)


def value_example(
    source: Sequence[int],
    tokens: Sequence[int],
    ends: Sequence[int],
    labels: Sequence[float],
    prefix_lm: bool = False,
    id: str = "",
    problem: str = "",
) -> Example:
    """Step values: at the last token of each labelled step the target is its label.

    Args:
      source: the prompt; a prefix LM reads it, but not the solution, in both directions.
      tokens, ends: a solution and its step ends (counts of its tokens).
      labels: one a step; negative where a step has no label.
    """
    ids = np.asarray([*source, *tokens], np.int32)
    targets = np.zeros(len(ids), np.float32)
    weights = np.zeros(len(ids), np.float32)
    steps = np.zeros(len(ids), np.int32)
    for number, (end, label) in enumerate(zip(ends, labels, strict=True), 1):
        steps[len(source) + end - 1] = number
        if label >= 0:
            targets[len(source) + end - 1] = label
            weights[len(source) + end - 1] = 1.0
    return Example(ids, targets, weights, len(source), len(source) - 1 if prefix_lm else 0, steps, id, problem)


def pack(examples: Sequence[Example], row_length: int) -> list[list[int]]:
    """Assigns examples to rows, first fit over the last few open rows; returns example indices by row.

    An example longer than a row is an error of the caller: nothing is truncated here.
    """
    open_rows: list[tuple[int, list[int]]] = []
    full: list[list[int]] = []
    for i, example in enumerate(examples):
        size = len(example)
        if size > row_length:
            raise ValueError(f"example {i} has {size} tokens, more than the row length {row_length}")
        for j, (used, members) in enumerate(open_rows):
            if used + size <= row_length:
                open_rows[j] = (used + size, [*members, i])
                break
        else:
            open_rows.append((size, [i]))
            if len(open_rows) > 16:
                open_rows.sort(key=lambda row: -row[0])
                full.append(open_rows.pop(0)[1])
    return full + [members for _, members in open_rows]


_KINDS = {"tokens": np.int32, "positions": np.int32, "segments": np.int32, "prefix": np.bool_, "written": np.bool_}
_KINDS |= {"targets": np.float32, "weights": np.float32, "steps": np.int32}


def shapes(rows: int, row_length: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Of a batch of `epochs`."""
    return {name: jax.ShapeDtypeStruct((rows, row_length), kind) for name, kind in _KINDS.items()}


def _fill(examples: Sequence[Example], rows: Sequence[Sequence[int]], row_length: int) -> dict[str, np.ndarray]:
    batch = {name: np.zeros((len(rows), row_length), kind) for name, kind in _KINDS.items()}
    for r, members in enumerate(rows):
        at = 0
        for segment, i in enumerate(members, 1):
            example = examples[i]
            span = slice(at, at + len(example))
            batch["tokens"][r, span] = example.tokens
            batch["positions"][r, span] = np.arange(len(example))
            batch["segments"][r, span] = segment
            batch["prefix"][r, at : at + example.prefix] = True
            batch["written"][r, at + example.source : at + len(example)] = True
            batch["targets"][r, span] = example.targets
            batch["weights"][r, span] = example.weights
            if example.steps is not None:
                batch["steps"][r, span] = example.steps
            at += len(example)
    return batch


def epochs(
    examples: Sequence[Example], row_length: int, batch_rows: int, seed: int, start: int = 0
) -> Iterator[dict[str, np.ndarray]]:
    """Endless packed batches, reshuffled every epoch; a pure function of its arguments.

    Args:
      start: number of batches to leave out, so that a resumed training sees what an uncut one sees.

    Yields:
      arrays [batch_rows, row_length]: `tokens`, `positions`, `segments` (0 is padding), `prefix`, `written`,
      `targets`, `weights`, `steps`.

    Raises:
      ValueError: there are no examples, which would never fill a batch.
    """
    for rows in itertools.islice(_plan(examples, row_length, batch_rows, seed), start, None):
        yield _fill(examples, rows, row_length)


def once(examples: Sequence[Example], row_length: int, batch_rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Packed batches with every example once, in order; the last one is filled up with empty rows."""
    rows = pack(examples, row_length)
    rows += [[]] * (-len(rows) % batch_rows)
    for at in range(0, len(rows), batch_rows):
        yield _fill(examples, rows[at : at + batch_rows], row_length)


def members(examples: Sequence[Example], row_length: int, batch_rows: int, seed: int, number: int) -> list[str]:
    """Ids of the examples in a batch of `epochs`, the first one being number 0; one without an id by its place."""
    rows = next(itertools.islice(_plan(examples, row_length, batch_rows, seed), number, None))
    return [examples[i].id or f"#{i}" for row in rows for i in row]


def _plan(examples: Sequence[Example], row_length: int, batch_rows: int, seed: int) -> Iterator[list[list[int]]]:
    """Endless batches as indices of examples by row."""
    if not examples:
        raise ValueError("no examples to make batches of")
    for epoch in itertools.count():
        order = np.random.default_rng((seed, epoch)).permutation(len(examples))
        rows = pack([examples[i] for i in order], row_length)
        mix = np.random.default_rng((seed, epoch, 1)).permutation(len(rows))
        rows = [[int(order[j]) for j in rows[i]] for i in mix]
        while len(rows) < batch_rows:  # a data set smaller than a batch is repeated
            rows = rows + rows
        for at in range(0, len(rows) - batch_rows + 1, batch_rows):
            yield rows[at : at + batch_rows]
