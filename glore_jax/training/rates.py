"""How fast a training is: tokens and floating-point operations a second, and which share of the devices' peak they are.

    operations a token = 6 x parameters that learn + 4 x those that stay + 12 x layers x heads x head size x row length

Each parameter of a product costs 2 operations forward and 2 backward for the gradient of its input; one that learns
costs 2 more for its own. The last term is the attention: products with the keys and the values, forward once and
backward twice, over whole rows (causal masks and packing are not taken off). The table of embeddings is looked up, not
multiplied, so it does not count where there is another one for the output. Recomputation (remat) does not count,
padding does. This is the model FLOPs utilisation (MFU) of PaLM, appendix B, against the peak in bfloat16 without
sparsity, whatever is computed in.
"""

from __future__ import annotations

import dataclasses
import resource
import sys
from typing import Any

import jax

from glore_jax.models.decoder import DecoderConfig
from glore_jax.parallel.topologies import CHIPS

FORMULA = "6 x parameters that learn + 4 x those that stay + 12 x layers x heads x head size x row length"
# Operations a second in bfloat16, by a part of the name that JAX gives the device; the first that fits.
PEAKS = (
    ("TPU v6 lite", CHIPS["v6e"].flops),
    ("TPU v6e", CHIPS["v6e"].flops),
    ("TPU v5 lite", CHIPS["v5e"].flops),
    ("TPU v5e", CHIPS["v5e"].flops),
    ("TPU v5", CHIPS["v5p"].flops),
    ("TPU v4", 275e12),
    ("H100 PCIe", 756e12),
    ("H100", 989e12),
    ("H200", 989e12),
    ("A100", 312e12),
)


def peak(kind: str) -> float | None:
    """Of a device, by its name; None where it is not known, as of any CPU.

    >>> peak("TPU v5 lite"), peak("NVIDIA H100 80GB HBM3"), peak("cpu")
    (197000000000000.0, 989000000000000.0, None)
    """
    return next((rate for part, rate in PEAKS if part in kind), None)


def operations(config: DecoderConfig, learning: int, staying: int, row_length: int) -> int:
    """Floating-point operations for one token of a row; see above.

    Args:
      learning, staying: parameters that are multiplied, which learn and which do not.
    """
    attention = 12 * config.num_layers * config.num_heads * config.head_dim * row_length
    return 6 * learning + 4 * staying + attention


def multiplied(params: Any) -> int:
    """Parameters of a tree that are multiplied: all but a table of embeddings beside another one for the output."""
    flat = {jax.tree_util.keystr(path): leaf.size for path, leaf in jax.tree.leaves_with_path(params)}
    tables = [size for path, size in flat.items() if "['embedding']" in path]
    return sum(flat.values()) - (sum(tables) if any("['unembedding']" in path for path in flat) else 0)


@dataclasses.dataclass(frozen=True)
class Rates:
    """Attributes: tokens, of a step, padding included; operations, for one of them."""

    tokens: int
    operations: int

    def of(self, seconds: float) -> dict[str, float]:
        """Of a step that took so long, and the memory; `mfu` only where the peak of the devices is known."""
        rates = {
            "tokens_per_second": self.tokens / seconds,
            "flops_per_second": self.operations * self.tokens / seconds,
        }
        most = peak(jax.devices()[0].device_kind)
        if most is not None:
            rates["mfu"] = rates["flops_per_second"] / (most * len(jax.devices()))
        return rates | memory()


def memory() -> dict[str, float]:
    """The most bytes that were held so far: by this process's first device where it says so, else by the process."""
    found = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if found is not None:
        return {"device_peak_memory_bytes": float(found)}
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"host_peak_memory_bytes": float(most if sys.platform == "darwin" else most * 1024)}
