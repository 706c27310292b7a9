"""The optimizer: which rule moves which parameter, and how fast."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.training import optimizer

pytestmark = pytest.mark.usefixtures("standard_promotion")


def toy_params() -> Any:
    return {
        "embedding": jnp.ones((5, 3)),
        "unembedding": jnp.ones((5, 3)),
        "attention_0": {"wq": jnp.ones((3, 4))},
        "final_norm": {"scale": jnp.ones((3,))},
    }


def first_update(name: str, gradients: Any, **changes: Any) -> Any:
    """The update of step 1 on parameters that are all one; step 0 has rate 0."""
    tx = optimizer.make(tiny.training(**({"optimizer": name, "warmup": 0.01, "learning_rate": 0.1} | changes)), 100)
    params = toy_params()
    state = tx.init(params)
    _, state = tx.update(gradients, state, params)
    updates, _ = tx.update(gradients, state, params)
    return updates


def test_the_rate_warms_up_and_falls_to_zero():
    """Seen through AdamW, whose step under a constant gradient is the rate itself."""
    tx = optimizer.make(tiny.training(warmup=0.2, learning_rate=0.1, clip=1e9), 10)
    params = {"w": jnp.ones((2, 2))}
    state, rates = tx.init(params), []
    for _ in range(11):
        updates, state = tx.update({"w": jnp.full((2, 2), 0.5)}, state, params)
        rates.append(-float(updates["w"][0, 0]))
    cosine = [0.05 * (1 + np.cos(np.pi * t / 8)) for t in range(9)]
    np.testing.assert_allclose(rates, [0.0, 0.05, *cosine], atol=1e-5)


def test_a_training_of_one_step_has_a_schedule():
    optimizer.make(tiny.training(warmup=0.0), 1).init(toy_params())


def test_gradients_are_clipped_by_their_global_norm():
    params = {"w": jnp.zeros((1, 2)), "v": jnp.zeros((1, 1))}
    gradients = {"w": jnp.array([[30.0, 0.0]]), "v": jnp.array([[40.0]])}  # norm 50
    clip = optimizer.make(tiny.training(clip=5.0), 10)
    state = clip.init(params)
    _, state = clip.update(gradients, state, params)
    momenta = [
        x for x in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState)) if hasattr(x, "mu")
    ]
    assert len(momenta) == 1
    np.testing.assert_allclose(momenta[0].mu["w"], [[0.1 * 3.0, 0.0]], rtol=1e-5)  # b1 = 0.9
    np.testing.assert_allclose(momenta[0].mu["v"], [[0.1 * 4.0]], rtol=1e-5)


def test_adamw_decays_matrices_alone():
    gradients = jax.tree.map(jnp.zeros_like, toy_params())
    updates = first_update("adamw", gradients, weight_decay=0.5)
    np.testing.assert_allclose(updates["attention_0"]["wq"], -0.1 * 0.5, rtol=1e-5)
    np.testing.assert_array_equal(updates["final_norm"]["scale"], 0)


def test_muon_orthogonalises_the_layers_and_leaves_the_rest_to_adam():
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), toy_params())
    updates = first_update("muon", gradients)
    singular = np.linalg.svd(updates["attention_0"]["wq"], compute_uv=False)
    assert singular.max() / singular.min() < 2  # all directions of a matrix move alike
    raw = np.linalg.svd(gradients["attention_0"]["wq"], compute_uv=False)
    assert raw.max() / raw.min() > 2
    for name in ("embedding", "unembedding"):  # Adam's step has the size of its rate, 0.3 of Muon's
        np.testing.assert_allclose(np.abs(updates[name]), 0.03, rtol=0.2)  # (Nesterov's look ahead adds a little)
        np.testing.assert_array_equal(np.sign(updates[name]), -np.sign(gradients[name]))
    np.testing.assert_allclose(np.abs(updates["final_norm"]["scale"]), 0.03, rtol=0.2)


def test_an_unknown_optimizer_is_named():
    with pytest.raises(ValueError, match="unknown optimizer 'sgd'; there are adamw and muon"):
        optimizer.make(tiny.training(optimizer="sgd"), 10)


@pytest.mark.parametrize(("name", "most"), [("adamw", 0.005), ("muon", 0.1)])
def test_moments_may_be_kept_in_half_the_memory(name: str, most: float):
    """They are rounded between two steps, by at most a part in 256; what Muon makes orthogonal is moved further."""
    draw = np.random.default_rng(
        0
    ).normal  # of full rank: Muon blows up what is rounded of directions that are not there
    gradients = jax.tree.map(lambda p: jnp.asarray(draw(size=p.shape), jnp.float32), toy_params())
    tx = optimizer.make(tiny.training(optimizer=name, moments="bfloat16"), 10)
    matrices = [x for x in jax.tree.leaves(tx.init(toy_params())) if x.ndim]
    assert matrices and {x.dtype for x in matrices} == {np.dtype(jnp.bfloat16)}
    half, whole = (first_update(name, gradients, moments=moments) for moments in ("bfloat16", "float32"))
    apart = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)), half, whole)
    assert max(jax.tree.leaves(apart)) < most, apart
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(whole), strict=True))
    with pytest.raises(InputError, match="unknown moments 'int8'; there are float32 and bfloat16"):
        optimizer.make(tiny.training(moments="int8"), 10)
