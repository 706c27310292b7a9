"""Continuations of a text as benchmarks ask for them: how likely given ones are, and what one is to be written like."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from glore_jax.errors import InputError
from glore_jax.models import decoder
from glore_jax.models.decoder import Decoder
from glore_jax.models.visibility import Visibility
from glore_jax.parallel import placement
from glore_jax.parallel.rows import batches

_POSITIONS = 64  # of which logits over the vocabulary are held at a time
_LIMITS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # the first that is given counts
_OF_SAMPLING = ("min_p", "typical_p")  # greedy decoding is the same with any of them


@dataclasses.dataclass(frozen=True)
class Continuation:
    """Attributes: tokens, of a context and what comes after it; given, how many are the context's, one at least."""

    tokens: tuple[int, ...]
    given: int

    @classmethod
    def of(cls, context: Sequence[int], written: Sequence[int], max_length: int) -> Continuation:
        """What a model that reads `max_length` tokens can be asked: of a longer context the last tokens.

        Raises:
          InputError: the continuation alone is longer than that, or nothing stands before it.
        """
        if not context:
            raise InputError(
                "a context has no token, being white space alone; begin the task's doc_to_text with a word"
            )
        if len(written) > max_length:
            raise InputError(
                f"a continuation has {len(written)} tokens, and the model reads {max_length}; give a larger "
                "--max-length, or a task of shorter texts"
            )
        tokens = (*context, *written)[-max_length - 1 :]  # the last one is predicted, never read
        return cls(tokens, len(tokens) - len(written))


def loglikelihoods(
    model: Decoder,
    params: Any,
    continuations: Sequence[Continuation],
    rows: int,
    advance: Callable[[int], None] = lambda count: None,
) -> list[tuple[float, bool]]:
    """For each continuation the sum of its tokens' log-probabilities (nats), and whether each is the most likely one.

    A prefix LM reads the context in both directions, as when it writes.

    Args:
      rows: that are computed together on each device.
      advance: called with how many were done.
    """
    place = placement.make()
    params = jax.device_put(params, place.whole)
    out = [(0.0, True)] * len(continuations)
    lengths = [max(1, len(c.tokens) - 1) for c in continuations]  # of what is read
    for batch, count, width in batches(lengths, place.parts("batch"), rows * place.parts("batch")):
        inputs, targets = np.zeros((count, width), np.int32), np.zeros((count, width), np.int32)
        length, given = (np.zeros(count, np.int32) for _ in range(2))
        for r, i in enumerate(batch):
            tokens = continuations[i].tokens
            length[r], given[r] = len(tokens) - 1, continuations[i].given
            inputs[r, : length[r]], targets[r, : length[r]] = tokens[:-1], tokens[1:]
        found = _read(model, params, *place.put((inputs, targets, length, given)))
        total_B, greedy_B = map(np.asarray, found)
        for r, i in enumerate(batch):
            out[i] = float(total_B[r]), bool(greedy_B[r])
        advance(len(batch))
    return out


@functools.partial(jax.jit, static_argnums=0)
def _read(
    model: Decoder, params: Any, inputs_BxT: jax.Array, targets_BxT: jax.Array, length_B: jax.Array, given_B: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sum of log-probabilities [B] of the targets from position `given` - 1 on, and whether all are greedy ones [B]."""
    B, T = inputs_BxT.shape
    positions_BxT = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None, :], (B, T))
    inside_BxT = positions_BxT < length_B[:, None]
    both_ways = positions_BxT < given_B[:, None] - 1 if model.config.prefix_lm else None
    visible = Visibility(inside_BxT.astype(jnp.int32), both_ways)
    hidden_BxTxD, _ = model.apply({"params": params}, inputs_BxT, positions_BxT, visible)

    def at_position(hidden_and_target: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        hidden_BxD, target_B = hidden_and_target
        logits_BxV = decoder.logits(params, hidden_BxD, model)
        chosen_B = jnp.take_along_axis(logits_BxV, target_B[:, None], axis=-1)[:, 0]
        return chosen_B - jax.nn.logsumexp(logits_BxV, axis=-1), jnp.argmax(logits_BxV, axis=-1) == target_B

    columns = hidden_BxTxD.swapaxes(0, 1), targets_BxT.T
    logprob_TxB, greedy_TxB = jax.lax.map(at_position, columns, batch_size=_POSITIONS)
    scored_BxT = inside_BxT & (positions_BxT >= given_B[:, None] - 1)
    total_B = jnp.sum(jnp.where(scored_BxT, logprob_TxB.T, 0.0), axis=-1)
    return total_B, jnp.all(greedy_TxB.T | ~scored_BxT, axis=-1)


@dataclasses.dataclass(frozen=True)
class Writing:
    """How a continuation is to be written.

    Attributes:
      until: texts that end it; neither they nor what comes after them belong to it.
      limit: most tokens.
      temperature: 0 is greedy.
      top_k, top_p: of sampling; 0 and 1 leave all tokens.
    """

    until: tuple[str, ...]
    limit: int
    temperature: float
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def of(cls, settings: Mapping[str, Any], limit: int = 256) -> Writing:
        """From a task's `generation_kwargs`.

        Args:
          limit: where they name none.

        Raises:
          InputError: they ask for what the sampler does not do; what it would leave out would change the figures.
        """
        rest = dict(settings)
        until = rest.pop("until", None) or ()
        limits = [rest.pop(name) for name in _LIMITS if rest.get(name) is not None]
        temperature, sample = float(rest.pop("temperature", None) or 0.0), rest.pop("do_sample", None)
        if sample and not temperature:
            raise InputError("generation_kwargs: do_sample=True with a temperature of 0; give a temperature above 0")
        if sample is False:
            temperature = 0.0
        top_k, top_p = int(rest.pop("top_k", None) or 0), rest.pop("top_p", None)
        unknown = {k: v for k, v in rest.items() if v is not None and (temperature or k not in _OF_SAMPLING)}
        if unknown:
            name, value = next(iter(unknown.items()))
            raise InputError(
                f"generation_kwargs: {name}={value!r} is not something that the sampler does; expected until, "
                f"max_gen_toks, do_sample, temperature, top_k and top_p, so remove {name} from the task"
            )
        texts = (until,) if isinstance(until, str) else tuple(until)
        cuts = (top_k, 1.0 if top_p is None else float(top_p)) if temperature else (0, 1.0)
        return cls(texts, int(limits[0]) if limits else limit, temperature, *cuts)

    def cut(self, text: str) -> str:
        """What stands before the first of the texts that end it.

        >>> Writing(("\\n\\n", "Question:"), limit=9, temperature=0.0).cut("7 nuts. Question: 8\\n\\n9")
        '7 nuts. '
        """
        for end in filter(None, self.until):
            text = text.split(end)[0]
        return text
