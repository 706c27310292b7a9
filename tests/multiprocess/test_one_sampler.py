"""What is sampled does not hang on whether each process has an engine or all have one together."""

import json
from pathlib import Path

from processes import run

SCRIPT = str(Path(__file__).with_name("one_sampler.py"))


def test_engines_of_each_process_and_of_all_sample_the_same():
    (alone,) = run(1, [SCRIPT], devices=2)
    each, together = json.loads(alone.out)
    assert each == together and len({str(tokens) for tokens in each}) == 6
    for one in run(2, [SCRIPT]):
        assert json.loads(one.out.splitlines()[-1]) == [each, each]
