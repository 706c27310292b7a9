"""Layers scanned, rematerialised or one by one: the same values and gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.ad_checkpoint import print_saved_residuals

from glore_jax.models import decoder, layout, next_token, stacking, whole_rows
from glore_jax.models.decoder import Decoder
from glore_jax.models.execution import Execution
from glore_jax.models.visibility import Visibility
from glore_jax.parallel import programs

# Two periods of two layers, and one layer over.
CONFIG = tiny.decoder_config(num_layers=5, layer_windows=(3, 0, 3, 0, 3), local_rope_theta=100.0, qk_norm=True)
PARAMS = decoder.init(Decoder(CONFIG), jax.random.key(0))
TOKENS = jnp.asarray(np.random.default_rng(0).integers(3, tiny.VOCAB, (2, 12)), jnp.int32)
SEGMENTS = jnp.asarray([[1] * 7 + [2] * 3 + [0] * 2, [1] * 12], jnp.int32)
POSITIONS = jnp.asarray([[*range(7), *range(3), 0, 0], [*range(12)]], jnp.int32)


def test_a_period_is_after_how_many_layers_windows_come_again():
    def of(*windows: int) -> int:
        return stacking.period(tiny.decoder_config(num_layers=len(windows), layer_windows=windows))

    assert stacking.period(tiny.decoder_config(num_layers=7)) == 1
    assert (of(4, 4, 4), of(4, 0, 4, 0), of(4, 0, 4, 0, 4), of(4, 4, 0, 4, 4, 0, 4)) == (1, 2, 2, 3)
    assert of(0, 0, 4) == 3  # nothing comes again


def test_stacked_layers_lie_row_by_row_and_come_back():
    stacked = stacking.stack(PARAMS, CONFIG)
    assert set(stacked) == {n for n in PARAMS if not n[-1].isdigit() or n.endswith("_4")} | {stacking.LAYERS}
    np.testing.assert_array_equal(stacked["layers"]["attention_1"]["wq"][1], PARAMS["attention_3"]["wq"])
    jax.tree.map(np.testing.assert_array_equal, stacking.unstack(stacked), PARAMS)
    names = layout.names(CONFIG, stacked=True)
    assert tuple(names["layers"]["mlp_0"]["down"]) == ("layers", "mlp", "embed")
    assert tuple(names["mlp_4"]["down"]) == ("mlp", "embed")


def hidden_and_gradients(params: Any, remat: str) -> Any:
    model = Decoder(CONFIG, Execution(remat=remat))

    @jax.jit
    def outputs(params: Any) -> Any:
        def total(params: Any) -> tuple[jax.Array, jax.Array]:
            hidden = whole_rows.read(model, params, TOKENS, POSITIONS, Visibility(SEGMENTS))
            return jnp.sum(jnp.sin(3.0 * hidden)), hidden

        gradients, hidden = jax.grad(total, has_aux=True)(params)
        return hidden, stacking.unstack(gradients)

    return outputs(params)


@pytest.mark.parametrize("remat", ["none", pytest.param("products", marks=pytest.mark.slow), "full"])
def test_scanned_layers_compute_what_single_ones_do(remat: str):
    expected = hidden_and_gradients(PARAMS, "none")
    found = hidden_and_gradients(stacking.stack(PARAMS, CONFIG), remat)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, expected)


def test_full_rematerialisation_keeps_nothing_but_what_goes_into_a_layer(capsys: pytest.CaptureFixture[str]):
    model = Decoder(CONFIG, Execution(remat="full"))
    read = lambda p: jnp.sum(whole_rows.read(model, p, TOKENS, POSITIONS, Visibility(SEGMENTS)))  # noqa: E731
    print_saved_residuals(read, PARAMS)
    kept = [line.split(" ", 1)[0] for line in capsys.readouterr().out.splitlines()]
    sizes = [int(np.prod([int(n) for n in shape.partition("[")[2][:-1].split(",") if n])) for shape in kept]
    assert max(sizes) <= max(x.size for x in jax.tree.leaves(PARAMS))
    assert not any(shape.endswith("[2,4,12,12]") for shape in kept)  # no scores


def test_a_large_vocabulary_is_judged_by_chunks(monkeypatch: pytest.MonkeyPatch):
    model = Decoder(dataclasses.replace(CONFIG, logit_soft_cap=5.0))
    hidden = jax.random.normal(jax.random.key(1), (2, 12, CONFIG.d_model))

    def outputs() -> Any:
        def total(params: Any, hidden: jax.Array) -> tuple[jax.Array, Any]:
            nats, right = next_token.judge(model, params, hidden, TOKENS)
            return jnp.sum(jnp.sin(nats)), (nats, right)

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(PARAMS, hidden)

    whole = outputs()
    for limit in ("_LOGITS", "_CPU_LOGITS"):
        monkeypatch.setattr(next_token, limit, 1)
    monkeypatch.setattr(next_token, "_POSITIONS", 10)
    assert next_token.chunk(12, 2, tiny.VOCAB, "cpu") == 4
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), outputs(), whole)
    assert "12,64]" in str(jax.make_jaxpr(lambda h: h @ PARAMS["unembedding"].T)(hidden))
    assert "12,64]" not in str(jax.make_jaxpr(lambda h: next_token.judge(model, PARAMS, h, TOKENS))(hidden))


def test_logits_of_256k_words_never_exist_whole():
    """Nor do their gradients: 4 GiB for 4,096 positions, of which 256 are there at a time, in a few arrays."""
    words, positions = 2**18, 4096
    model = Decoder(tiny.decoder_config(vocab_size=words))
    table = jax.ShapeDtypeStruct((words, 16), jnp.float32)
    hidden, targets = (
        jax.ShapeDtypeStruct((1, positions, 16), jnp.float32),
        jax.ShapeDtypeStruct((1, positions), jnp.int32),
    )

    def loss(table: jax.Array, hidden: jax.Array, targets: jax.Array) -> jax.Array:
        return jnp.sum(next_token.judge(model, {"unembedding": table}, hidden, targets)[0])

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(table, hidden, targets).compile()
    assert programs.memory(compiled).temporaries < words * positions * 4 / 4
