"""What tests of the whole pipeline compare with."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import whole_run
from processes import run


@pytest.fixture(scope="session")
def uncut(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The work folder of a whole run of so many processes that nobody cut; each is run once."""

    @functools.cache
    def finished(count: int) -> Path:
        workdir = tmp_path_factory.mktemp(f"uncut{count}")
        first, *others = run(count, whole_run.command(workdir))
        assert re.findall(r"^\[\d+/\d+\] (\w+): ", first.out, re.MULTILINE) == whole_run.STAGES
        assert f"all {len(whole_run.STAGES)} stages are done" in first.out
        spoken = [line for one in others for line in one.out.splitlines() if not line.startswith("[Gloo]")]
        assert not spoken  # the lead alone speaks, and the library that carries the sums
        assert whole_run.folders(workdir) == sorted(whole_run.STAGES)
        return workdir

    return finished
