"""Losses by hand: what each adds up, and that means are sums over sums."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from glore_jax.models import decoder, value_head
from glore_jax.training import batches, losses, optimizer, train_step
from glore_jax.training.batches import Example


class Fixed:
    """Stands in for a decoder: the hidden state of token t is row t of a table, whatever surrounds it."""

    config = tiny.decoder_config()

    def __init__(self, table_VxD: Any):
        self.table_VxD = jnp.asarray(table_VxD, jnp.float32)

    def apply(self, variables: Any, tokens: jax.Array, positions: jax.Array, visible: Any) -> tuple[Any, None]:
        return self.table_VxD[tokens], None


def batch_of(tokens: list, targets: list, weights: list) -> dict[str, jax.Array]:
    zeros = np.zeros(np.shape(tokens))
    return {
        "tokens": jnp.asarray(tokens, jnp.int32),
        "targets": jnp.asarray(targets, jnp.float32),
        "weights": jnp.asarray(weights, jnp.float32),
        "positions": jnp.asarray(zeros, jnp.int32),
        "segments": jnp.asarray(zeros + 1, jnp.int32),
        "steps": jnp.asarray(zeros + np.arange(zeros.shape[1]) + 1, jnp.int32),
        "prefix": jnp.asarray(zeros, bool),
        "written": jnp.asarray(zeros + np.arange(zeros.shape[1]) > 0, bool),
    }


def test_language_loss_by_hand():
    # Hidden states are the logits themselves: the unembedding is the identity.
    table = np.log([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    params = {"decoder": {"unembedding": jnp.eye(3)}}
    batch = batch_of([[0, 1, 2]], [[1, 1, 0]], [[1.0, 1.0, 0.0]])
    total, sums = losses.language(Fixed(table), params, batch)  # type: ignore[arg-type]
    assert float(total) == pytest.approx(-np.log(0.25) - np.log(0.8), rel=1e-5)  # position 2 weighs nothing
    assert float(sums["accuracy"]) == 1.0  # the second is the likeliest, the first is not
    assert float(sums["weight"]) == 2.0
    half, sums = losses.language(Fixed(table), params, batch | {"weights": batch["weights"] / 2})  # type: ignore
    assert float(half) == pytest.approx(float(total) / 2, rel=1e-5)
    assert float(sums["weight"]) == 1.0


def test_value_loss_by_hand():
    logits = np.log([3.0, 1 / 4, 1.0])  # probabilities 3/4, 1/5, 1/2
    table = np.stack([logits, np.zeros(3)], axis=1)
    head = {"kernel": jnp.array([1.0, 5.0]), "bias": jnp.zeros(())}
    params = {"decoder": {"unembedding": jnp.eye(3, 2)}, "value_head": head}
    batch = batch_of([[0, 1, 2]], [[1, 1, 0.5]], [[1, 1, 0]])
    total, sums = losses.value(Fixed(table), params, batch)  # type: ignore[arg-type]
    assert float(total) == pytest.approx(-np.log(0.75) - np.log(0.2), rel=1e-5)
    assert (float(sums["accuracy"]), float(sums["weight"])) == (1.0, 2.0)
    assert sums["right_by_prefix"][:3].tolist() == [1, 0, 0] and sums["weight_by_prefix"][:3].tolist() == [1, 1, 0]
    # Token 1 is expected with p = 3 / (3 + 1 + 1) after token 0, token 2 with p = 1 / (1/4 + 1 + 1) after token 1.
    beside, told = losses.value(Fixed(table), params, batch, language=0.5)  # type: ignore[arg-type]
    assert float(beside - total) == pytest.approx(-0.5 * (np.log(1 / 5) + np.log(1 / 2.25)), rel=1e-5)
    assert set(told) - set(sums) == {"label_loss", "language_loss"}
    assert (float(told["label_loss"]), float(told["language_loss"])) == (float(total), pytest.approx(beside - total))
    soft = batch_of([[0]], [[0.25]], [[1]])
    total, _ = losses.value(Fixed(table), params, soft)  # type: ignore[arg-type]
    assert float(total) == pytest.approx(-0.25 * np.log(0.75) - 0.75 * np.log(0.25), rel=1e-5)


def random_examples(count: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(3, tiny.VOCAB, rng.integers(3, 15)).tolist() for _ in range(count)]
    return [batches.language_example(t[:2], t[2:]) for t in tokens]


def test_packed_examples_cost_what_they_cost_alone():
    model, decoder_params = tiny.random_decoder()
    params = {"decoder": decoder_params}
    examples = random_examples(9)
    loss = jax.jit(lambda params, batch: losses.language(model, params, batch))
    whole = next(batches.epochs(examples, 128, 1, 0))
    assert whole["segments"].max() == 9
    packed, sums = loss(params, whole)
    alone = [loss(params, next(batches.epochs([e], 128, 1, 0))) for e in examples]
    assert float(packed) == pytest.approx(sum(float(total) for total, _ in alone), rel=1e-5)
    for name, value in sums.items():
        assert float(value) == pytest.approx(sum(float(part[name]) for _, part in alone), rel=1e-5)


def test_prefixes_reach_the_attention():
    model, decoder_params = tiny.random_decoder()
    model = decoder.Decoder(dataclasses.replace(model.config, prefix_lm=True))
    loss = jax.jit(lambda params, batch: losses.language(model, params, batch))
    causal, both = (batches.language_example([5, 6, 7, 8], [9, 2], prefix_lm=b) for b in (False, True))
    totals = [
        float(loss({"decoder": decoder_params}, batch)[0])
        for batch in (next(batches.epochs([e], 8, 1, 0)) for e in (causal, both))
    ]
    assert totals[0] != pytest.approx(totals[1], rel=1e-3)


@pytest.mark.usefixtures("standard_promotion")
def test_the_step_divides_sums_by_sums():
    """Rows of very different weight: a mean of the rows' means would be another number."""
    model, decoder_params = tiny.random_decoder()
    params = {"decoder": decoder_params}
    short, long = batches.language_example([5, 6], [7, 2]), batches.language_example([8], list(range(9, 20)))
    batch = next(batches.epochs([short, long], 12, 2, 0))
    tx = optimizer.make(tiny.training(), 6)
    state = train_step.init(jax.tree.map(jnp.asarray, params), tx)
    _, metrics = jax.jit(train_step.make(model, losses.language, tx))(state, batch)
    loss = jax.jit(lambda params, batch: losses.language(model, params, batch))
    rows = [loss(params, {k: v[r : r + 1] for k, v in batch.items()}) for r in (0, 1)]
    weight = sum(float(sums["weight"]) for _, sums in rows)
    assert float(metrics["weight"]) == weight == 13
    assert float(metrics["loss"]) == pytest.approx(sum(float(total) for total, _ in rows) / weight, rel=1e-5)
    assert float(metrics["accuracy"]) == pytest.approx(sum(float(s["accuracy"]) for _, s in rows) / weight, rel=1e-5)
    means = [float(total) / float(sums["weight"]) for total, sums in rows]
    assert abs(sum(means) / 2 - float(metrics["loss"])) > 0.01


@pytest.mark.usefixtures("standard_promotion")
def test_a_batch_without_weight_moves_nothing():
    model, decoder_params = tiny.random_decoder()
    params = {"decoder": jax.tree.map(jnp.asarray, decoder_params)}
    example = batches.language_example([5, 6], [7, 2])
    empty = Example(example.tokens, example.targets, 0 * example.weights, source=2)
    tx = optimizer.make(tiny.training(), 6)
    step = jax.jit(train_step.make(model, losses.language, tx))
    state, metrics = step(train_step.init(params, tx), next(batches.epochs([empty], 12, 2, 0)))
    assert float(metrics["loss"]) == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, params)


@pytest.mark.parametrize("surprise", [False, True])
def test_value_gradients_reach_the_decoder(surprise: bool):
    model, decoder_params = tiny.random_decoder()
    params = {
        "decoder": jax.tree.map(jnp.asarray, decoder_params),
        "value_head": value_head.init(jax.random.key(0), 16, surprise),
    }
    example = batches.value_example([5, 6], [7, 8, 9], [1, 3], [1, 0])
    batch = jax.tree.map(jnp.asarray, next(batches.epochs([example], 8, 1, 0)))
    gradients = jax.jit(jax.grad(lambda p: losses.value(model, p, batch)[0]))(params)
    norms = {jax.tree_util.keystr(path): float(jnp.abs(g).max()) for path, g in jax.tree.leaves_with_path(gradients)}
    unused = {name for name, norm in norms.items() if norm == 0}
    assert unused == {"['decoder']['unembedding']"}  # surprise is read, not bent; no other head reads it at all
    beside = jax.jit(jax.grad(lambda p: losses.value(model, p, batch, language=0.1)[0]))(params)
    assert float(jnp.abs(beside["decoder"]["unembedding"]).max()) > 0
    assert decoder.logits(params["decoder"], jnp.ones((1, 16))).shape == (1, tiny.VOCAB)
