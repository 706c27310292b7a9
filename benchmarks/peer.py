"""transformers as the peer of the benchmarks: the same weights, read in the same way, in the same process.

Needs the extra `parity`: .venv/bin/python -m pip install -e '.[parity]'
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from transformers.models.llama import modeling_llama  # pyright: ignore[reportMissingImports]

from glore_jax.models import huggingface
from glore_jax.models.decoder import CausalLM, Decoder

_causal_mask = modeling_llama.create_causal_mask


class Peer:
    """A Llama-shaped decoder in transformers.

    Args:
      model, params: the decoder as the package has it; it goes through a folder of Hugging Face.
      eos, pad: token ids; eos None: nothing ends a text.
      device, dtype: of torch, where it computes and in what.
    """

    def __init__(
        self, model: Decoder, params: Any, eos: int | None, pad: int, device: str = "cpu", dtype: str = "float32"
    ):
        causal = Decoder(dataclasses.replace(model.config, prefix_lm=False))  # no folder says that a prefix is read so
        with tempfile.TemporaryDirectory() as folder:
            huggingface.save(CausalLM(causal), params, Path(folder) / "model")
            read = transformers.AutoModelForCausalLM.from_pretrained
            self.model: Any = read(Path(folder) / "model", dtype=getattr(torch, dtype))
        self.model.eval().to(device)
        self.prefix_lm, self.eos, self.pad = model.config.prefix_lm, eos, pad

    @torch.no_grad()
    def sample(
        self, sources: Sequence[Sequence[int]], given: Sequence[int], count: int, limit: int
    ) -> list[list[list[int]]]:
        """`count` samples at temperature 1 of each source, in one call of `generate`.

        Args:
          sources: token ids; padded on the left.
          given: how many of each are read in both directions, but for the last of them, by a prefix LM.
          limit: most new tokens.
        """
        width = max(map(len, sources))
        tokens, mask = (np.full((len(sources), width), fill) for fill in (self.pad, 0))
        for row, source in enumerate(sources):
            tokens[row, width - len(source) :], mask[row, width - len(source) :] = source, 1
        ends = torch.tensor([width - len(s) + g - 1 for s, g in zip(sources, given, strict=True)])
        settings = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_new_tokens": limit}
        with _both_ways(ends.repeat_interleave(count)) if self.prefix_lm else _as_it_is():
            written = self.model.generate(
                torch.from_numpy(tokens).to(self.model.device),
                attention_mask=torch.from_numpy(mask).to(self.model.device),
                num_return_sequences=count,
                eos_token_id=self.eos,
                pad_token_id=self.pad,
                **settings,
            )
        rows = [self._cut(row) for row in written[:, width:].tolist()]
        return [rows[i : i + count] for i in range(0, len(rows), count)]

    def stream(self, sources: Sequence[Sequence[int]], limit: int) -> int:
        """Tokens that the continuous-batching mode writes, one sample a source; it reads causally only."""
        settings = transformers.GenerationConfig(
            do_sample=True, temperature=1.0, max_new_tokens=limit, eos_token_id=self.eos, pad_token_id=self.pad
        )
        found = self.model.generate_batch([list(source) for source in sources], generation_config=settings)
        return sum(len(output.generated_tokens) for output in found.values())

    def _cut(self, row: list[int]) -> list[int]:
        return row[: row.index(self.eos) + 1] if self.eos in row else row


class _as_it_is:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


class _both_ways:
    """While it is open, columns before `ends` are seen from each other in both directions."""

    def __init__(self, ends: torch.Tensor):
        self.ends = ends

    def __enter__(self) -> None:
        def inside(row: Any, head: Any, query: Any, key: Any) -> Any:
            return (query < self.ends[row]) & (key < self.ends[row])

        def mask(*args: Any, **kwargs: Any) -> Any:
            writes = kwargs["inputs_embeds"].shape[1] == 1  # a step of decoding, which sees everything before it
            return _causal_mask(*args, **kwargs, or_mask_function=None if writes else inside)

        modeling_llama.create_causal_mask = mask

    def __exit__(self, *error: object) -> None:
        modeling_llama.create_causal_mask = _causal_mask
