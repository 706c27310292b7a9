"""Trainings of an adapter: what moves and what stays, that they go on where they were cut, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from glore_jax.errors import InputError
from glore_jax.models import decoder, lora, value_head
from glore_jax.training import adaptation, batches, loop, losses, resuming

pytestmark = pytest.mark.usefixtures("standard_promotion")

MODEL, DECODER = tiny.random_decoder()
LORA = {"rank": 2, "alpha": 4.0, "layers": ("wq", "up")}
MARKS = (50, 51)


def make_examples() -> list[batches.Example]:
    """Sequences that count up, after a mark."""
    starts = np.random.default_rng(0).integers(3, 40, 12).tolist()
    return [batches.language_example([50, s], [*range(s + 1, s + 6), tiny.EOS]) for s in starts]


def train(folder: Path | None = None, params: Any = None, **options: Any) -> loop.Trained:
    call: dict[str, Any] = {"loss": losses.language, "examples": make_examples(), "marks": MARKS}
    call |= {name: options.pop(name) for name in ("loss", "examples", "marks", "advance") if name in options}
    settings = tiny.training(**{"lora": LORA, "learning_rate": 0.02, **options})
    loss, examples = call.pop("loss"), call.pop("examples")
    return loop.train(MODEL, params or {"decoder": DECODER}, loss, examples, settings, 0, folder, **call)


def flat(params: Any) -> dict[str, Any]:
    return flatten_dict(params, sep="/")


def moved(trained: loop.Trained) -> set[str]:
    before = flat(DECODER)
    return {path for path, x in flat(trained.params["decoder"]).items() if not np.array_equal(x, before[path])}


def test_only_the_adapted_layers_and_the_rows_of_marks_move():
    trained = train(steps=30)
    assert trained.curve[-1]["loss"] < 0.8 * trained.curve[0]["loss"]
    layers = {f"{layer}_{i}/{name}" for layer, name in (("attention", "wq"), ("mlp", "up")) for i in (0, 1)}
    assert moved(trained) == layers | {"embedding", "unembedding"}
    others = np.delete(np.arange(tiny.VOCAB), MARKS)
    for name in ("embedding", "unembedding"):
        table = np.asarray(trained.params["decoder"][name])
        np.testing.assert_array_equal(table[others], DECODER[name][others])
    embedding = np.asarray(trained.params["decoder"]["embedding"])
    assert (embedding[50] != DECODER["embedding"][50]).all()
    np.testing.assert_array_equal(embedding[51], DECODER["embedding"][51])  # a mark that no example has
    assert moved(train(marks=())) == layers


def test_the_merged_layers_are_those_with_the_adapter():
    """W + alpha / rank A B, and values computed along both ways."""
    trained = train(steps=30)
    assert trained.adapter is not None
    config, adapter = trained.adapter
    assert config == lora.LoraConfig(2, 4.0, ("wq", "up"))
    for layer, name in (("attention_0", "wq"), ("mlp_1", "up")):
        part = adapter[layer][name]
        change = 2.0 * np.asarray(part["a"], np.float64) @ np.asarray(part["b"], np.float64)
        np.testing.assert_allclose(trained.params["decoder"][layer][name], DECODER[layer][name] + change, atol=1e-5)
    batch = next(batches.epochs(make_examples(), 16, 2, 0))
    found = jax.jit(lambda p: losses.language(MODEL, p, batch)[0])
    with_adapter = {"decoder": lora.merge(DECODER, adapter, config)}
    assert float(found(trained.params)) < 0.9 * float(found({"decoder": DECODER}))
    for name in ("embedding", "unembedding"):
        with_adapter["decoder"][name] = trained.params["decoder"][name]
    assert float(found(with_adapter)) == pytest.approx(float(found(trained.params)), rel=1e-5)


def test_at_first_b_learns_alone():
    """B is zero at first, so A has no gradient; the rate of the first step is 0, so the second is the first to move."""
    trained = train(steps=2)
    assert trained.adapter is not None
    config, adapter = trained.adapter
    fresh = lora.init(jax.random.key(0), DECODER, config)
    for path, array in flat(adapter).items():
        if path.endswith("/a"):
            np.testing.assert_array_equal(array, flat(fresh)[path])
        else:
            assert 0 < np.abs(array).max() <= 0.03, path  # Adam's step is about the rate, 0.02


def test_rank_0_is_training_without_an_adapter_bit_by_bit():
    off = train(lora=LORA | {"rank": 0})
    without = tiny.training(learning_rate=0.02)
    assert "lora" not in without
    plain = loop.train(MODEL, {"decoder": DECODER}, losses.language, make_examples(), without, 0)
    assert (off.adapter, plain.adapter) == (None, None)
    assert off.curve == plain.curve
    jax.tree.map(np.testing.assert_array_equal, off.params, plain.params)
    assert moved(off) == set(flat(DECODER))


def test_a_value_head_learns_whole():
    rng = np.random.default_rng(0)
    examples = [
        batches.value_example([5], [50 + label, *rng.integers(3, 40, 3).tolist()], [2, 4], [label, label])
        for label in [0, 1] * 8
    ]
    head = jax.device_get(value_head.init(jax.random.key(0), MODEL.config.d_model))
    params = {"decoder": DECODER, "value_head": head}
    trained = train(params=params, loss=losses.value, examples=examples, steps=60, learning_rate=0.05, marks=())
    assert trained.curve[-1]["accuracy"] == 1.0
    assert moved(trained) == {"attention_0/wq", "attention_1/wq", "mlp_0/up", "mlp_1/up"}
    assert (np.asarray(trained.params["value_head"]["kernel"]) != head["kernel"]).all()


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_cut_training_ends_bit_equal_to_an_uncut_one(tmp_path: Path, optimizer: str):
    options = {"optimizer": optimizer, "checkpoint_seconds": -1}  # a checkpoint after every step
    uncut = train(**options)
    with pytest.raises(tiny.Cut):
        train(tmp_path, advance=tiny.cut_at(4), **options)
    assert resuming.reached(tmp_path) == 3
    resumed = train(tmp_path, **options)
    assert resumed.tokens == 3 * 32  # steps 4 to 6
    assert resumed.curve == uncut.curve
    jax.tree.map(np.testing.assert_array_equal, (resumed.params, resumed.adapter[1]), (uncut.params, uncut.adapter[1]))


def test_what_learns_has_gradients_and_moments_and_what_stays_has_none(tmp_path: Path):
    """By hand: of rank 2 on wq [16, 32] and up [16, 24] in two layers, and two rows of 16 in two tables."""
    config = lora.LoraConfig(2, 4.0, ("wq", "up"))
    trained, frozen = adaptation.split({"decoder": DECODER}, config, MARKS, jax.random.key(0))
    count = 2 * 2 * (16 + 32 + 16 + 24) + 2 * 2 * 16
    assert sum(x.size for x in jax.tree.leaves(trained)) == count
    assert jax.tree.leaves(frozen)[0] is jax.tree.leaves({"decoder": DECODER})[0]  # not a second copy
    jax.tree.map(np.testing.assert_array_equal, adaptation.join(trained, frozen, config, MARKS), {"decoder": DECODER})
    with pytest.raises(tiny.Cut):
        train(tmp_path, advance=tiny.cut_at(2), checkpoint_seconds=-1)
    state = ocp.StandardCheckpointer().restore(tmp_path.resolve() / "1" / "state")
    sizes = {kind: sum(np.size(x) for x in jax.tree.leaves(state[kind])) for kind in ("params", "opt_state")}
    assert sizes["params"] == count
    assert 2 * count <= sizes["opt_state"] <= 2 * count + 3  # two moments each, and counters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ("wq", "gates")}, r"train\.lora\.layers: the model has no linear layer 'gates'; did you mean gate"),
        ({"layers": ("q_proj",)}, "no linear layer 'q_proj'; there are: down, gate, unembedding, up, wk, wo, wq, wv"),
        ({"layers": ()}, r"train\.lora\.layers: none; give some of "),
        ({"rank": 17}, r"train\.lora\.rank=17: the layer wq is 16 x 32; expected 1 to 16, or 0 for no adapter"),
        ({"rank": -1}, r"train\.lora\.rank=-1: the layer wq is 16 x 32; expected 1 to 16"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_runs(changes: dict[str, Any], message: str):
    def never(*_: Any) -> Any:
        raise AssertionError("traced")

    with pytest.raises(InputError, match=message):
        train(loss=never, lora=LORA | changes)


def test_a_tied_model_has_no_unembedding_to_adapt():
    tied = decoder.Decoder(tiny.decoder_config(tied_embedding=True))
    params = jax.eval_shape(lambda key: decoder.init(tied, key), jax.random.key(0))
    settings = ConfigDict({"lora": LORA | {"layers": ("unembedding",)}})
    with pytest.raises(InputError, match=r"orm\.train\.lora\.layers: the model has no linear layer 'unembedding'"):
        adaptation.config_of(settings, params, "orm.train")
    settings.lora.layers = ("wq",)
    config = adaptation.config_of(settings, params, "orm.train")
    trained, _ = jax.eval_shape(lambda p: adaptation.split({"decoder": p}, config, MARKS, jax.random.key(0)), params)
    assert list(trained["rows"]) == ["embedding"]
    assert trained["rows"]["embedding"] == jax.ShapeDtypeStruct((2, 16), jnp.float32)


def test_an_adapter_of_scanned_layers_learns_what_one_of_single_layers_does():
    """Their first draws are those of the layers, whatever array they lie in."""
    one, scanned = train(), train(scan=True, remat="products")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), scanned.params, one.params)
    assert one.adapter is not None and scanned.adapter is not None
    assert set(flat(scanned.adapter[1])) == set(flat(one.adapter[1]))
