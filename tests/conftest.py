"""The ground that all tests stand on: CPU, two devices, strict array arithmetic, kept compilations.

`GLORE_TEST_CACHE=DIR` keeps compiled programs from one test session to the next. `GLORE_TEST_DATA=DIR` names published
data that the repository does not hold; see `public_data.py`. `GLORE_TEST_DEVICES=N` sets the number of devices.
"""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator

import hypothesis
import jax
import pytest

# Of several processes that test side by side the first makes the cache, and removes it.
_OWN = "GLORE_TEST_CACHE" not in os.environ
if _OWN:
    os.environ["GLORE_TEST_CACHE"] = tempfile.mkdtemp(prefix="glore-test-cache-")
_CACHE = os.environ["GLORE_TEST_CACHE"]

# The commands that tests start as processes of their own share the cache and the platform.
os.environ["GLORE_CACHE"] = _CACHE
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most programs are run once or twice: optimising them, and the newer of two ways to fuse, take longer than they do.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=1 --xla_cpu_use_fusion_emitters=false")

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_num_cpu_devices", int(os.environ.get("GLORE_TEST_DEVICES", "2")))
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", _CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)

# How long an example takes says more about the machine, and about compilation, than about the code.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _OWN:
        shutil.rmtree(_CACHE, ignore_errors=True)


@pytest.fixture
def standard_promotion() -> Iterator[None]:
    """Optax adds floats to integers; what goes through it cannot be strict about dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture
def room() -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """`with room(100):` lets no file grow beyond so many bytes, as if its disk were full then."""

    @contextlib.contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited
