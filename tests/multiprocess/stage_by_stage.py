"""A script for each process of a job: every stage of the whole pipeline, each from what one process has made.

    python stage_by_stage.py ALONE MADE

ALONE is the work folder of a finished run. What the job makes of each stage's inputs goes to MADE/STAGE.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import whole_run

from glore_jax import cli, commands, configuration, pipeline
from glore_jax.parallel import hosts
from glore_jax.stages import recipes


def run(alone: Path, made: Path) -> None:
    whole_run.prepare()
    workdir = made / "run"
    options, overrides = commands.parse(whole_run.command(workdir)[1:])
    config = configuration.load(options.config, overrides)
    cli.prepare_jax(config)
    count, index = (int(os.environ[name]) for name in ("GLORE_PROCESSES", "GLORE_PROCESS"))
    with hosts.joined(os.environ["GLORE_COORDINATOR"], count, index):
        if hosts.lead():
            shutil.copytree(alone, workdir)
        hosts.barrier("copied")
        for stage in recipes.GLORE:
            pipeline.run(config, workdir, recipes.GLORE, only=stage.name)
            if hosts.lead():
                (workdir / stage.name).rename(made / stage.name)
                shutil.copytree(alone / stage.name, workdir / stage.name)
            hosts.barrier("set back")


if __name__ == "__main__":
    run(*map(Path, sys.argv[1:]))
