"""Pins what transformers computes on the tiny checkpoints, so that machines without torch test against it too.

Makes tests/models/golden/*.npz anew; needs the extra `parity`:

    python tests/models/make_golden.py

Attributes of a file:
  logits: [positions, vocabulary] of transformers on the padded batch, at every third position that is not padding.
  greedy: [rows, 64] the tokens that follow each prompt, by a forward pass over everything for each of them.
  margin: how far the best token was ahead of the second, at least.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
import checkpoints

GOLDEN = Path(__file__).with_name("golden")
NEW = 64


def positions() -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the batch whose logits are pinned."""
    places = [(r, t) for r, row in enumerate(checkpoints.prompts()) for t in range(2, len(row), 3)]
    rows, columns = np.asarray(places).T
    return rows, columns


def reference(folder: Path) -> Any:
    """The model of transformers, with attention in plain torch: only that one knows soft caps."""
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()


def reference_logits(model: Any, tokens_BxT: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.tensor(tokens_BxT).long(), use_cache=False).logits.float().numpy()


def greedy(model: Any, prompt: list[int]) -> tuple[list[int], float]:
    """The tokens that follow a prompt, and the smallest lead that one of them had."""
    tokens, margin = list(prompt), np.inf
    for _ in range(NEW):
        last = np.sort(logits := reference_logits(model, np.asarray([tokens]))[0, -1])
        margin = min(margin, float(last[-1] - last[-2]))
        tokens.append(int(np.argmax(logits)))
    return tokens[len(prompt) :], margin


def main() -> None:
    for family in checkpoints.FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            model = reference(checkpoints.write(Path(folder), checkpoints.config(family)))
            logits = reference_logits(model, checkpoints.padded(checkpoints.prompts()))[positions()]
            rows, margins = zip(*(greedy(model, prompt) for prompt in checkpoints.prompts()), strict=True)
        made = {"logits": logits, "greedy": np.asarray(rows, np.uint8), "margin": np.float32(min(margins))}
        np.savez_compressed(GOLDEN / f"{family}.npz", **made)
        print(f"{family}: margin {min(margins):.4f}, {len({*rows[0]})} different tokens in the first row")


if __name__ == "__main__":
    main()
