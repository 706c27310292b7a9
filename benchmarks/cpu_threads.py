"""What it is worth to switch XLA's threads within an operation off where every core has a device of its own.

python benchmarks/cpu_threads.py

Times training steps of the base model's shape (24 rows of 320 tokens, bfloat16, as many CPU devices as cores) in fresh
processes, with those threads and without by turns. Prints JSON: milliseconds a step, and with over without. Two
minutes on two cores.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

CONFIG = Path(__file__).parents[1] / "configs" / "arithmetic_base.py"
ROUNDS, STEPS = 3, 16


def milliseconds_a_step() -> float:
    """Median over the steps of one training; the first ones, which compile and warm up, are left out."""
    import jax

    jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    from ml_collections import ConfigDict

    from glore_jax import configuration
    from glore_jax.method import base_model
    from glore_jax.models.decoder import Decoder, DecoderConfig
    from glore_jax.training import loop, losses
    from glore_jax.training.batches import language_example

    config = configuration.load(str(CONFIG))
    model = Decoder(DecoderConfig(config.vocabulary, **config.model.to_dict(), dtype=config.train_dtype))
    settings = ConfigDict({**config.pretrain_medium.train, "steps": STEPS})
    example = language_example([5], [6] * settings.row_length)
    stamps: list[float] = []
    loop.train(
        model,
        {"decoder": base_model.init(model, 0)},
        losses.language,
        [example] * settings.rows,
        settings,
        0,
        advance=lambda tokens, metrics: stamps.append(time.perf_counter()),
    )
    return 1e3 * statistics.median(b - a for a, b in itertools.pairwise(stamps[3:]))


def main() -> None:
    found: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(ROUNDS):
        for name, value in (("with", "true"), ("without", "false")):
            flags = {"XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={value}"}
            shown = subprocess.run(
                [sys.executable, __file__, "--one"], env={**os.environ, **flags}, check=True, capture_output=True
            )
            found[name].append(float(shown.stdout))
    medians = {name: round(statistics.median(times), 1) for name, times in found.items()}
    ratio = round(medians["with"] / medians["without"], 3)
    print(json.dumps({"milliseconds_a_step": medians, "with_over_without": ratio}))


if __name__ == "__main__":
    if sys.argv[1:] == ["--one"]:
        print(milliseconds_a_step())
    else:
        main()
