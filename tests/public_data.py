"""Where published data lies that tests read and the repository does not hold: `GLORE_TEST_DATA`.

Without that variable it is `../shared/data`, seen from the repository. The folder holds `gsm8k/train.jsonl` and
`test.jsonl`, `svamp/SVAMP.json`, in `tokenizers/` vocabularies of open models, and judged solutions in `processbench/`,
`bigbench_mistake/`, `prm_format_samples/` and `traces/`. Tests skip where it is absent.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).parents[2] / "shared" / "data"


def folder(name: str) -> Path:
    """A folder of the published data; skips the test that asks where there is none."""
    path = Path(os.environ.get("GLORE_TEST_DATA") or _DEFAULT) / name
    if not path.is_dir():
        pytest.skip(f"{path} is not there; name a folder that holds {name}/ with GLORE_TEST_DATA")
    return path
