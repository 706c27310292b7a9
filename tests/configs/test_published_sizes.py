"""What the configurations say of published models, worked out from the sizes in their `config.json`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import golden
import jax
import pytest

from glore_jax import configuration
from glore_jax.errors import InputError
from glore_jax.models import decoder, published
from glore_jax.models.decoder import Decoder


@pytest.mark.parametrize("model", golden.MODELS)
def test_the_docstring_has_the_right_figures(model: str):
    path = golden.ROOT / "configs" / f"gsm8k_{model}.py"
    experiment = configuration.load(str(path))
    config, tokens = published.describe(Path(experiment.base.path).name)
    shapes = jax.eval_shape(lambda key: decoder.init(Decoder(config), key), jax.random.key(0))
    parameters = sum(x.size for x in jax.tree.leaves(shapes))

    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    assert f"{parameters / 1e9:.1f} billion parameters, a vocabulary of {config.vocab_size:,}" in doc
    # float32: parameters, gradients, and two moments of the optimizer
    assert re.search(rf"memory +{round(16 * parameters / 2**30)} GiB on every device", doc)
    assert experiment.refiner.prefix_lm is config.prefix_lm is False
    assert 0 < tokens <= config.vocab_size


def test_every_model_with_known_sizes_has_a_configuration():
    paths = {configuration.load(str(golden.ROOT / "configs" / f"gsm8k_{m}.py")).base.path for m in golden.MODELS}
    assert {Path(path).name for path in paths} == set(published.MODELS)


def test_a_model_that_is_not_known_is_named():
    with pytest.raises(InputError, match=r"'Llama-2-7b' are not known.*Llama-2-7b-hf"):
        published.describe("Llama-2-7b")
