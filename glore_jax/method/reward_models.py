"""ORM and SORM (paper sections 3.2 and 3.3): what they are trained on, and reading their values."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glore_jax.models import decoder, layout, value_head
from glore_jax.models.execution import Execution
from glore_jax.models.visibility import Visibility
from glore_jax.parallel import hosts
from glore_jax.parallel import placement as placements
from glore_jax.parallel.placement import Placement
from glore_jax.parallel.rows import batches
from glore_jax.records import Problem, Solution, StepLabels
from glore_jax.text import formats
from glore_jax.text.tokenizers import Tokenizer
from glore_jax.training.batches import Example, value_example


def orm_labels(traces: Sequence[Solution]) -> list[StepLabels]:
    """The ORM's targets: the final label at every step end. It learns the student's own value V^π."""
    return [StepLabels(t.id, (int(t.right),) * t.num_steps) for t in traces]


def balanced_traces(traces: Sequence[Solution]) -> list[Solution]:
    """Equal numbers of right and wrong traces of each question: the balanced ORM's data."""
    groups: dict[str, tuple[list[Solution], list[Solution]]] = defaultdict(lambda: ([], []))
    for trace in traces:
        groups[trace.problem_id][trace.right].append(trace)
    out = []
    for wrong, right in groups.values():
        size = min(len(wrong), len(right))
        out += wrong[:size] + right[:size]
    return out


def truncate(
    tokenizer: Tokenizer,
    problems: Mapping[str, Problem],
    traces: Sequence[Solution],
    labels: Sequence[StepLabels],
    row_length: int,
) -> tuple[list[Solution], list[StepLabels], int]:
    """Traces that fit a row: one that is too long loses its last steps, and these steps' labels with them.

    A trace of which not even the first step fits stays as it is; training leaves it out and counts it.

    Returns:
      the traces, their labels, and how many labels went.
    """
    fitting: list[tuple[Solution, StepLabels]] = []
    gone = 0
    for trace, entry in zip(traces, labels, strict=True):
        room = row_length - len(formats.encode_prompt(tokenizer, problems[trace.problem_id].question))
        kept = sum(end <= room for end in trace.step_ends)
        if len(trace.tokens) > room and kept:
            gone += sum(label >= 0 for label in entry.labels[kept:])
            ends = trace.step_ends[:kept]
            text = "\n".join(trace.steps[:kept])
            trace = dataclasses.replace(trace, tokens=trace.tokens[: ends[-1]], step_ends=ends, text=text)
            entry = StepLabels(trace.id, entry.labels[:kept])
        fitting.append((trace, entry))
    return [trace for trace, _ in fitting], [entry for _, entry in fitting], gone


def examples(
    tokenizer: Tokenizer,
    problems: Mapping[str, Problem],
    traces: Sequence[Solution],
    labels: Sequence[StepLabels],
    prefix_lm: bool,
    targets: Sequence[Sequence[float]] | None = None,
) -> list[Example]:
    """Training examples of a value model: one a trace that has any label left.

    Args:
      targets: what is learnt at each labelled step of each trace, from 0 to 1; None: its label.
    """
    out = []
    for n, (trace, entry) in enumerate(zip(traces, labels, strict=True)):
        if any(label >= 0 for label in entry.labels):
            learnt: Sequence[float] = entry.labels
            if targets is not None:  # of a trace that was cut, of what is left
                learnt = [t if x >= 0 else x for t, x in zip(targets[n], entry.labels, strict=False)]
            prompt = formats.encode_prompt(tokenizer, problems[trace.problem_id].question)
            out.append(
                value_example(prompt, trace.tokens, trace.step_ends, learnt, prefix_lm, trace.id, trace.problem_id)
            )
    return out


@functools.partial(jax.jit, static_argnums=0)
def _values(
    model: decoder.Decoder, params: Any, tokens_BxT: jax.Array, length_B: jax.Array, prompt_B: jax.Array
) -> jax.Array:
    B, T = tokens_BxT.shape
    positions = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None, :], (B, T))
    both_ways = positions < prompt_B[:, None] - 1 if model.config.prefix_lm else None
    visible = Visibility((positions < length_B[:, None]).astype(jnp.int32), both_ways)
    written = (positions >= prompt_B[:, None]) & (positions < length_B[:, None])
    return jax.nn.sigmoid(value_head.read(model, params, tokens_BxT, positions, visible, written)[0])


@dataclasses.dataclass(frozen=True)
class Reading:
    """A question and a solution to it as a value model reads them.

    Attributes:
      tokens: of both, one after the other.
      given: how many of them are the question's.
      ends: the position of the last token of each step, where its value is read.
    """

    tokens: tuple[int, ...]
    given: int
    ends: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer, question: str, tokens: Sequence[int], step_ends: Sequence[int]) -> Reading:
        """Args: tokens, step_ends: of the solution alone, as `Solution` has them."""
        source = formats.encode_prompt(tokenizer, question)
        return cls((*source, *tokens), len(source), tuple(len(source) + end - 1 for end in step_ends))


def score(
    model: decoder.Decoder,
    params: Any,
    tokenizer: Tokenizer,
    problems: Mapping[str, Problem],
    solutions: Sequence[Solution],
    placement: Placement | None = None,
) -> list[tuple[float, ...]]:
    """Step values of solutions: entry i is the value of the prefix that ends with step i."""
    readings = [Reading.of(tokenizer, problems[s.problem_id].question, s.tokens, s.step_ends) for s in solutions]
    return values(model, params, readings, placement=placement)


def values(
    model: decoder.Decoder,
    params: Any,
    readings: Sequence[Reading],
    advance: Callable[[int], None] = lambda count: None,
    placement: Placement | None = None,
) -> list[tuple[float, ...]]:
    """The value at every step end of every reading.

    All processes of a job ask for the same; each reads some batches, and what it has found goes to all.

    Args:
      advance: is told how many readings were done.
      placement: the devices; None: all, with the whole model on each.
    """
    place = (placement or placements.make()).of_process().keeping("positions")
    params = placements.lay(params, layout.shardings(model, params, place))
    model = model.clone(execution=Execution(place))
    found: dict[int, tuple[float, ...]] = {}
    every = list(batches([len(reading.tokens) for reading in readings], place.parts("batch")))
    for batch, rows, width in every if place.mesh.is_multi_process else hosts.share(every):
        tokens = np.zeros((rows, width), np.int32)
        length, prompt = (np.zeros(rows, np.int32) for _ in range(2))
        for r, i in enumerate(batch):
            count = len(readings[i].tokens)
            tokens[r, :count] = readings[i].tokens
            length[r], prompt[r] = count, readings[i].given
        values_BxT = np.asarray(hosts.whole(_values(model, params, *place.put((tokens, length, prompt)))))
        for r, i in enumerate(batch):
            found[i] = tuple(float(values_BxT[r, p]) for p in readings[i].ends)
        advance(len(batch))
    for part in hosts.gather("values", found):
        found |= part
    return [found[i] for i in range(len(readings))]
