"""Runs `on_eight_devices.py` in a process of its own: the number of devices is settled once a process begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("chosen", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_every_preset_computes_what_one_device_does(chosen: str):
    file = Path(__file__).with_name("on_eight_devices.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", chosen, str(file)]
    env = os.environ | {"GLORE_TEST_DEVICES": "8", "GLORE_TEST_CACHE": os.environ["GLORE_CACHE"]}
    # Each program is run once.
    env["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
