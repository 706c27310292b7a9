"""What is sampled does not hang on whether each process has an engine or all have one together, nor what is saved."""

import json
from pathlib import Path

import jax
import numpy as np
import tiny
from processes import run

from glore_jax.training import checkpoints

SCRIPT = str(Path(__file__).with_name("one_sampler.py"))


def test_engines_of_each_process_and_of_all_sample_and_save_the_same(tmp_path: Path):
    (alone,) = run(1, [SCRIPT, str(tmp_path / "alone")], devices=2)
    each, together = json.loads(alone.out)
    assert each == together and len({str(tokens) for tokens in each}) == 6
    for one in run(2, [SCRIPT, str(tmp_path / "two")]):
        assert json.loads(one.out.splitlines()[-1]) == [each, each]
    params, _ = checkpoints.load_model(tmp_path / "two")
    jax.tree.map(np.testing.assert_array_equal, params, tiny.random_decoder()[1])
    assert (tmp_path / "two").read_bytes() == (tmp_path / "alone").read_bytes()
