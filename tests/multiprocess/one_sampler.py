"""A script for each process of a job: what engines sample that the processes have each for itself, and one together.

The model of the latter, which lies in parts on all, is written to a file that is handed in.
"""

import json
import os
import sys
from pathlib import Path

import jax
import tiny

from glore_jax.models import layout
from glore_jax.parallel import hosts, placement
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Request, Source
from glore_jax.training import checkpoints

ALONE = {"rules": (), "sampling": "", "data": 1, "fsdp": 1, "tensor": 1, "sequence": 1}
TENSOR, FSDP = (ALONE | {"preset": name, name: 2} for name in ("tensor", "fsdp"))


def made(place: placement.Placement, trained: placement.Placement | None = None) -> Engine:
    """An engine; with `trained`, of parameters that lie as those of a training."""
    model, params = tiny.random_decoder()
    if trained is not None:
        params = placement.lay(params, layout.shardings(model, {"decoder": params}, trained)["decoder"])
    return Engine(model, params, tiny.sampling(), tiny.EOS, tiny.PAD, placement=place)


def sampled(engine: Engine) -> list[list[int]]:
    sources = [Source([3 + n, 4, 5 + n]) for n in range(3)]
    requests = [Request(f"{n}/{k}", source, 3, 1.0) for n, source in enumerate(sources) for k in range(2)]
    return [list(completion.tokens) for completion in engine.generate(requests, jax.random.key(0))]


def run(path: Path, index: int, count: int) -> None:
    jax.config.update("jax_num_cpu_devices", int(os.environ["DEVICES"]))
    with hosts.joined(os.environ.get("GLORE_COORDINATOR", ""), count, index):
        each, together = placement.make(), placement.make(TENSOR)
        assert not each.of_process().mesh.is_multi_process
        assert together.of_process().mesh.is_multi_process == (count > 1)
        engine = made(together, placement.make(FSDP))
        up = engine.params["mlp_0"]["up"]
        assert up.is_fully_addressable == (count == 1) and up.addressable_data(0).size * 2 == up.size
        checkpoints.save_model(path, engine.params, {})
        print(json.dumps([sampled(made(each)), sampled(engine)]))
    sys.stdout.flush()


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(os.environ.get("GLORE_PROCESS", 0)), int(os.environ.get("GLORE_PROCESSES", 1)))
