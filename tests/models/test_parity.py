"""Against transformers itself: the pinned figures are its own, and what leaves here it loads.

Needs the extra `parity`; `test_families.py` has the pinned figures for machines without it.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import checkpoints
import jax
import make_golden
import numpy as np
import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason="the extra `parity` is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra `parity` is not installed")

from glore_jax.errors import InputError
from glore_jax.models import families, huggingface
from glore_jax.models.value_head import ValueModel

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
FAMILIES = list(checkpoints.FAMILIES)
TOKENS = checkpoints.padded(checkpoints.prompts())
LENGTHS = [len(prompt) for prompt in checkpoints.prompts()]
SCORED = [f for f in FAMILIES if f != "gemma3"]  # transformers has no token classification for Gemma 3


def assert_near(found: Any, expected: np.ndarray) -> None:
    """Within 1e-4 of the largest, wherever a row has a token."""
    assert found.shape == expected.shape
    largest = max(np.abs(expected[r, :n]).max() for r, n in enumerate(LENGTHS))
    for r, n in enumerate(LENGTHS):
        assert np.abs(np.asarray(found)[r, :n] - expected[r, :n]).max() < 1e-4 * largest


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pinned_figures_are_those_of_transformers(family: str, tmp_path: Path):
    """A difference is a change in transformers, or in `checkpoints.py`: then run make_golden.py."""
    model = make_golden.reference(checkpoints.write(tmp_path, checkpoints.config(family)))
    pinned = np.load(make_golden.GOLDEN / f"{family}.npz")
    logits = make_golden.reference_logits(model, TOKENS)[make_golden.positions()]
    np.testing.assert_allclose(logits, pinned["logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_matter_to_transformers_either(family: str, tmp_path: Path):
    """The ragged batch with an attention mask is the padded one, so the pinned logits are those of the rows alone."""
    model = make_golden.reference(checkpoints.write(tmp_path, checkpoints.config(family)))
    mask = torch.tensor([[t < n for t in range(TOKENS.shape[1])] for n in LENGTHS]).long()
    with torch.no_grad():
        masked = model(torch.tensor(TOKENS).long(), attention_mask=mask).logits.numpy()
    assert_near(masked, make_golden.reference_logits(model, TOKENS))


@pytest.mark.parametrize("family", FAMILIES)
def test_what_leaves_here_is_loaded_with_the_same_logits(family: str, tmp_path: Path):
    given = checkpoints.write(tmp_path / "given", checkpoints.config(family))
    model, params = huggingface.load(given)
    huggingface.save(model, params, tmp_path / "made")
    made, report = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "made", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    expected = make_golden.reference_logits(make_golden.reference(given), TOKENS)
    np.testing.assert_array_equal(make_golden.reference_logits(made.eval(), TOKENS), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_transformers_saves_is_read_as_what_it_was(family: str, tmp_path: Path):
    """Its present spelling of `config.json`, and the older one of published folders, describe one model."""
    given = checkpoints.write(tmp_path / "given", checkpoints.config(family))
    make_golden.reference(given).save_pretrained(tmp_path / "theirs")
    model, params = huggingface.load(tmp_path / "theirs")
    expected, first = huggingface.load(given)
    assert model == expected
    jax.tree.map(np.testing.assert_array_equal, params, first)


@pytest.mark.parametrize("family", families.FAMILIES, ids=lambda f: f.model_type)
def test_keys_that_a_file_leaves_out_are_what_transformers_takes_them_for(family: families.Family):
    sizes = {"vocab_size": 64, "hidden_size": 64, "num_hidden_layers": 7, "num_attention_heads": 32}
    sizes |= {"intermediate_size": 48}
    problems: list[str] = []
    ours, _ = families.read(sizes | {"architectures": [family.stem + families.CAUSAL]}, problems)
    theirs = transformers.AutoConfig.for_model(family.model_type, **sizes)
    assert ours is not None and not problems
    assert ours.head_dim == (getattr(theirs, "head_dim", None) or 2)
    assert ours.num_kv_heads == theirs.num_key_value_heads
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.tied_embedding == theirs.tie_word_embeddings
    rotary = theirs.rope_parameters
    assert ours.rope_theta == rotary.get("full_attention", rotary)["rope_theta"]
    assert ours.local_rope_theta == rotary.get("sliding_attention", {}).get("rope_theta", 0.0)
    kinds = getattr(theirs, "layer_types", None) or ["sliding_attention" if family.stem == "Mistral" else ""] * 7
    windows = [theirs.sliding_window if kind == "sliding_attention" else 0 for kind in kinds]
    assert [ours.window(i) for i in range(7)] == windows
    assert ours.attention_soft_cap == (getattr(theirs, "attn_logit_softcapping", None) or 0.0)
    assert ours.logit_soft_cap == (getattr(theirs, "final_logit_softcapping", None) or 0.0)
    assert ours.query_pre_attn_scalar == getattr(theirs, "query_pre_attn_scalar", 0.0)


@functools.partial(jax.jit, static_argnums=0)
def call(model: Any, params: Any) -> jax.Array:
    return model.apply({"params": params}, TOKENS)


@pytest.mark.parametrize("family", SCORED)
def test_scores_are_those_of_token_classification(family: str, tmp_path: Path):
    model, params = huggingface.load(checkpoints.write(tmp_path / "given", checkpoints.config(family)))
    rng = np.random.default_rng(3)
    size = model.decoder.config.d_model
    head = {"kernel": rng.normal(size=size).astype(np.float32), "bias": np.float32(0.3)}
    value_model, values = ValueModel(model.decoder), {"decoder": params, "value_head": head}
    huggingface.save(value_model, values, tmp_path / "made")
    theirs, report = transformers.AutoModelForTokenClassification.from_pretrained(
        tmp_path / "made", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report.values()), report
    assert theirs.config.id2label == {0: "wrong", 1: "right"}
    with torch.no_grad():
        scores = theirs.eval()(torch.tensor(TOKENS).long()).logits
    ours = np.asarray(jax.nn.sigmoid(call(value_model, values)))
    assert_near(ours, torch.softmax(scores, dim=-1)[..., 1].numpy())
    assert np.std(ours) > 0.1


@pytest.mark.parametrize("kind", [families.CAUSAL, families.VALUE])
def test_the_command_that_converts_pickled_weights_does(kind: str, tmp_path: Path):
    """As the refusal of such a folder gives it."""
    given = checkpoints.write(tmp_path / "given", checkpoints.config("qwen3"))
    theirs = getattr(transformers, f"AutoModel{kind}").from_pretrained(given)
    theirs.save_pretrained(tmp_path / "plain")
    (tmp_path / "pickled").mkdir()
    shutil.copy(tmp_path / "plain" / "config.json", tmp_path / "pickled")
    torch.save(theirs.state_dict(), tmp_path / "pickled" / "pytorch_model.bin")
    with pytest.raises(InputError) as error:
        huggingface.load(tmp_path / "pickled")
    (command,) = re.findall(r'python -c "(.+)"', str(error.value))
    subprocess.run([sys.executable, "-c", command], check=True, capture_output=True)
    _, params = huggingface.load(tmp_path / "pickled-safetensors")
    jax.tree.map(np.testing.assert_array_equal, params, huggingface.load(tmp_path / "plain")[1])
