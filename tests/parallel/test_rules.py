"""Tables of rules: presets, rows that a configuration adds, and what is refused by name."""

from __future__ import annotations

import jax
import pytest
import tiny

from glore_jax.errors import InputError
from glore_jax.models import decoder
from glore_jax.parallel import rules


def test_every_axis_name_of_the_model_has_a_rule():
    boxed = decoder.shapes(decoder.Decoder(tiny.decoder_config(qkv_bias=True)))
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: hasattr(x, "names"))
    names = {name for box in boxes for name in box.names}
    assert {"vocab", "embed", "heads", "kv_heads", "mlp", "norm"} <= names <= set(rules.NAMES)
    assert all({name for name, _ in table} == set(rules.NAMES) for table in rules.PRESETS.values())
    assert set(rules.SPREAD) == set(rules.PRESETS)


def test_the_first_row_of_a_name_wins():
    table = (("embed", ("fsdp",)), ("embed", ("tensor",)), ("mlp", ()))
    assert rules.axes_of("embed", table) == ("fsdp",)
    assert rules.axes_of("mlp", table) == ()
    with pytest.raises(ValueError, match="no rule for the axis 'heads'"):
        rules.axes_of("heads", table)


@pytest.mark.parametrize(
    ("preset", "split"),
    [
        ("replicated", {}),
        ("fsdp", {"embed": "fsdp"}),
        ("tensor", {"vocab": "tensor", "heads": "tensor", "kv_heads": "tensor", "mlp": "tensor"}),
    ],
)
def test_what_a_preset_splits(preset: str, split: dict[str, str]):
    for name in rules.NAMES:
        expected = {"batch": ("data", "fsdp"), "positions": ("sequence",)}.get(name, (split.get(name),))
        assert rules.axes_of(name, rules.table(preset)) == tuple(filter(None, expected))


def test_rows_of_a_configuration_stand_before_those_of_its_preset():
    table = rules.table("fsdp+tensor", ["kv_heads=none", "mlp=fsdp+tensor"])
    assert rules.axes_of("kv_heads", table) == ()
    assert rules.axes_of("mlp", table) == ("fsdp", "tensor")
    assert rules.axes_of("heads", table) == ("tensor",)


@pytest.mark.parametrize(
    ("preset", "added", "message"),
    [
        ("fsdq", [], r"sharding\.preset='fsdq': no such preset; did you mean fsdp\?"),
        ("fsdp", ["head=tensor"], r"sharding\.rules: 'head=tensor' is of no axis of the model; did you mean heads"),
        ("fsdp", ["heads=tensors"], r"sharding\.rules: 'heads=tensors': no mesh axis 'tensors'; there are data, fsdp,"),
        ("fsdp", ["heads"], r"sharding\.rules: 'heads': no mesh axis ''; .* or none"),
    ],
)
def test_what_there_is_not_is_refused_by_name(preset: str, added: list[str], message: str):
    with pytest.raises(InputError, match=message):
        rules.table(preset, added)
