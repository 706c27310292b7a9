"""Checkpoints of a training: whole or passed over, bit-equal, on any mesh, and of this training alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from glore_jax.errors import InputError
from glore_jax.training import resuming

# TensorStore leaves futures behind of what it gave up reading.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ORIGIN = {"seed": 0, "steps": 9}


def mesh_of(devices: int) -> jax.sharding.Mesh:
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def state_of(step: int, devices: int = 2) -> dict[str, jax.Array]:
    rows, whole = (NamedSharding(mesh_of(devices), spec) for spec in (P("data"), P()))
    table = jax.random.normal(jax.random.key(step), (6, 5000))
    state = {"step": jnp.int32(step), "w": table, "half": table[0].astype(jnp.bfloat16), "on": table[1] > 0}
    return {name: jax.device_put(x, rows if name == "w" else whole) for name, x in state.items()}


def write(folder: Path, *steps: int, best: int | None = None, count: int = 2) -> None:
    with resuming.opened(folder, ORIGIN, count) as saved:
        assert saved is not None
        for step in steps:
            saved.save(step, state_of(step), {"curve": [{"step": step, "loss": 1 / 3}]}, best)


def read(folder: Path, devices: int = 2, origin: dict[str, Any] = ORIGIN) -> tuple[Any, dict[str, Any]]:
    with resuming.opened(folder, origin) as saved:
        assert saved is not None
        return saved.restore(state_of(0, devices))


def assert_step(found: tuple[Any, dict[str, Any]], step: int) -> None:
    jax.tree.map(np.testing.assert_array_equal, found[0], state_of(step))
    assert found[1] == {"curve": [{"step": step, "loss": 1 / 3}]}  # to the last bit


def test_the_newest_state_comes_back_on_any_mesh_with_what_the_host_kept(tmp_path: Path):
    write(tmp_path, 1, 2, 5)
    for devices in (2, 1):
        found = read(tmp_path, devices)
        assert_step(found, 5)
        assert {name: x.sharding for name, x in found[0].items()} == {
            name: x.sharding for name, x in state_of(5, devices).items()
        }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "5"]  # one to go on from, one should it be damaged
    assert resuming.reached(tmp_path) == 5
    assert resuming.reached(tmp_path / "nowhere") == 0


@pytest.mark.parametrize(("count", "kept"), [(1, {"4"}), (3, {"2", "3", "4"}), (9, {"1", "2", "3", "4"})])
def test_as_many_of_the_newest_stay_as_are_asked_for(tmp_path: Path, count: int, kept: set[str]):
    write(tmp_path, 1, 2, 3, 4, count=count)
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_none_to_go_on_from_is_refused():
    settings = tiny.training(checkpoints=0)
    with pytest.raises(InputError, match=r"orm\.train\.checkpoints=0: at least the newest one has to stay"):
        resuming.check("orm.train", settings)


def test_the_best_stays_beside_the_newest(tmp_path: Path):
    write(tmp_path, 1, 2, best=2)
    write(tmp_path, 3, 4, 5, best=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "4", "5"]
    with resuming.opened(tmp_path, ORIGIN) as saved:
        assert saved is not None
        assert_step(saved.read(2, state_of(0)), 2)


def test_an_empty_folder_gives_the_state_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    state = state_of(0)
    with resuming.opened(tmp_path, ORIGIN) as saved:
        assert saved is not None
        assert saved.restore(state) == (state, {})
        assert saved.newest is None
    assert capsys.readouterr().out == ""


def numbers(folder: Path) -> Path:
    """The file that holds the numbers of the state."""
    return max(folder.rglob("d/*"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(
    ("name", "how", "said"),
    [
        ("numbers", "flipped", r"\['\w+'\] is not what was written \(\d such of 4\)"),
        ("numbers", "truncated", "cannot be read"),
        ("numbers", "gone", "cannot be read"),
        ("state/manifest.ocdbt", "flipped", "cannot be read .*CRC-32C"),
        ("state/_METADATA", "truncated", "cannot be read"),
        ("host/metadata", "edited", "what the host kept is not what was written"),
        ("host/metadata", "gone", "cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, how: str, said: str
):
    write(tmp_path, 3, 4)
    path = numbers(tmp_path / "4") if name == "numbers" else tmp_path / "4" / name
    data = path.read_bytes()
    if how == "gone":
        path.unlink()
    else:
        at = len(data) // 2
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        edited = data.replace(b"0.333", b"0.334")
        path.write_bytes({"truncated": data[:at], "flipped": flipped, "edited": edited}[how])
    assert_step(read(tmp_path), 3)
    out = capsys.readouterr().out
    pattern = rf"WARNING: checkpoint {tmp_path}/4\.damaged: {said}.*; it is set aside, and the one before it is taken\n"
    assert re.fullmatch(pattern, out), out
    write(tmp_path, 4)  # computed again, it takes its place
    assert_step(read(tmp_path), 4)


def test_a_full_disk_names_the_folder_at_the_next_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """As Orbax says it, of what it was writing in the background."""
    said = ValueError("RESOURCE_EXHAUSTED: Failed to write 60898 bytes to file 5: No space left on device")

    def fail(*_: Any, **__: Any) -> None:
        raise said

    with resuming.opened(tmp_path / "full", ORIGIN) as saved:
        assert saved is not None
        monkeypatch.setattr(saved._manager, "save", fail)
        with pytest.raises(InputError, match=rf"{tmp_path}/full: cannot be written \(No space left on device\)"):
            saved.save(1, state_of(1), {})
        said = ValueError("something else")
        with pytest.raises(ValueError, match="something else"):
            saved.save(1, state_of(1), {})


@pytest.mark.timeout(120)
def test_a_write_that_fails_is_told_while_the_others_still_wait_to_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    class Failing:
        def result(self, timeout: int | None = None) -> None:
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

    async def failing(*_: Any, **__: Any) -> list[Failing]:
        return [Failing()]

    monkeypatch.setattr(resuming.ocp.StandardCheckpointHandler, "async_save", failing)
    full = pytest.raises(InputError, match=rf"{tmp_path}: cannot be written \(No space left on device\)")
    with full, resuming.opened(tmp_path, ORIGIN) as saved:  # at its end, too
        assert saved is not None
        saved.save(1, state_of(1), {})
        monkeypatch.setattr(saved._manager, "is_saving_in_progress", lambda: True)  # as where another has not failed
        with pytest.raises(InputError, match="cannot be written"):
            saved.save(2, state_of(2), {})
        assert len(saved._failed) == 1


def test_an_unfinished_checkpoint_is_named_and_the_one_before_it_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    write(tmp_path, 3, 4)
    unfinished = tmp_path / "4.orbax-checkpoint-tmp"  # its name until it is whole
    (tmp_path / "4").rename(unfinished)
    assert_step(read(tmp_path), 3)
    assert f"checkpoint {unfinished}: was not finished when the run ended; it is not used\n" in capsys.readouterr().out
    write(tmp_path, 4)
    assert not unfinished.exists()


def test_where_no_checkpoint_is_whole_the_training_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    write(tmp_path, 3, 4)
    for step in ("3", "4"):
        (tmp_path / step / "state" / "manifest.ocdbt").unlink()
    found, kept = read(tmp_path)
    assert (int(found["step"]), kept) == (0, {})
    out = capsys.readouterr().out
    assert "4.damaged" in out and "3.damaged" in out
    assert out.endswith(f"WARNING: no checkpoint in {tmp_path} is whole; the training begins anew\n")


def test_a_checkpoint_of_another_training_is_refused_with_the_difference(tmp_path: Path):
    write(tmp_path, 4)
    with pytest.raises(InputError, match=r"4: a checkpoint of another training \(seed: 0 there, 1 here\); set these"):
        read(tmp_path, origin=ORIGIN | {"seed": 1})
    assert_step(read(tmp_path), 4)


def test_a_save_in_the_background_is_not_torn_by_donation(tmp_path: Path):
    step = jax.jit(lambda s: {"w": s["w"] + 1}, donate_argnums=0)
    state = {"w": jax.device_put(jnp.zeros(1 << 20), NamedSharding(mesh_of(2), P("data")))}
    with resuming.opened(tmp_path, ORIGIN) as saved:
        assert saved is not None
        for number in range(1, 4):
            state = step(state)
            saved.save(number, state, {})
            for _ in range(5):  # overwrites the buffers while they are being written
                state = step(state)
        for number, value in ((2, 7.0), (3, 13.0)):
            np.testing.assert_array_equal(saved.read(number, state)[0]["w"], np.full(1 << 20, value))


def test_checksums_see_every_change_and_no_placement():
    """By hand: [3, 5] as uint32, weights 1 and 3."""
    assert resuming._sums({"x": jnp.array([3, 5], jnp.int32)}) == {"['x']": 3 * 1 + 5 * 3}
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    swapped = table[:, [1, 0, 2]]
    sums = [resuming._sums({"x": jax.device_put(t, NamedSharding(mesh_of(n), P("data")))}) for t in (table, swapped)
            for n in (1, 2)]  # fmt: skip
    assert sums[0] == sums[1] != sums[2] == sums[3]
