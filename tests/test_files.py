"""Atomic writes and tables of records."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from glore_jax import files, records
from glore_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Everything:
    whole: int
    real: float
    flag: bool
    text: str
    maybe: int | None
    maybe_list: tuple[str, ...] | None
    ints: tuple[int, ...]
    nested: tuple[tuple[float, ...], ...]
    by_name: dict[str, tuple[float, ...]]
    problem: records.Problem
    solutions: tuple[records.Solution, ...]


_ints = st.integers(-(2**63), 2**63 - 1)
_reals = st.floats(allow_nan=False)
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_problems = st.builds(records.Problem, id=_texts, question=_texts, answer=_texts, solution=_texts, facts=_texts)
_solutions = st.builds(
    records.Solution,
    id=_texts,
    problem_id=_texts,
    tokens=st.lists(_ints, max_size=4).map(tuple),
    step_ends=st.lists(_ints, max_size=2).map(tuple),
    text=_texts,
    right=st.booleans(),
    finished=st.booleans(),
)
_rows = st.builds(
    Everything,
    whole=_ints,
    real=_reals,
    flag=st.booleans(),
    text=_texts,
    maybe=st.none() | _ints,
    maybe_list=st.none() | st.lists(_texts, max_size=3).map(tuple),
    ints=st.lists(_ints, max_size=4).map(tuple),
    nested=st.lists(st.lists(_reals, max_size=3).map(tuple), max_size=3).map(tuple),
    by_name=st.dictionaries(_texts, st.lists(_reals, max_size=3).map(tuple), max_size=3),
    problem=_problems,
    solutions=st.lists(_solutions, max_size=2).map(tuple),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_rows, max_size=4))
def test_rows_come_back_as_they_went(tmp_path_factory: pytest.TempPathFactory, rows: list[Everything]):
    path = tmp_path_factory.mktemp("tables") / "rows.parquet"
    files.write_table(path, rows, Everything)
    assert files.read_table(path, Everything) == rows


@dataclasses.dataclass(frozen=True)
class Tokens:
    name: str
    tokens: tuple[int, ...]


@pytest.mark.parametrize("tokens", [(), (0, 1, 300, 2**18 - 1), (1, 2**18), (-1, 3)])
def test_tokens_of_any_size_come_back_as_plain_integers(tmp_path: Path, tokens: tuple[int, ...]):
    files.write_table(tmp_path / "t.parquet", [Tokens("a", tokens)], Tokens)
    (row,) = files.read_table(tmp_path / "t.parquet", Tokens)
    assert row.tokens == tokens and {type(token) for token in row.tokens} <= {int}


def test_a_tally_counts_the_values_of_a_column(tmp_path: Path):
    path = tmp_path / "t.parquet"
    files.write_table(path, [Tokens(name, ()) for name in "babb"], Tokens)
    assert list(files.tally(path, Tokens, "name").items()) == [("b", 3), ("a", 1)]
    with pytest.raises(InputError, match="is not a table of Case"):
        files.tally(path, records.Case, "located")


def test_json_is_that_of_the_standard_library(tmp_path: Path):
    value = {"a": [[1, 2], [], {}], "b": {"é": None, "c": 0.1}, "d": True}
    for whole in (value, [], "text", 3):
        files.write_json(tmp_path / "v.json", whole)
        assert (tmp_path / "v.json").read_text() == json.dumps(whole, indent=2, ensure_ascii=False) + "\n"


def _case() -> records.Case:
    solution = records.Solution("s", "p", (5, 6, 2), (2, 3), "1+1=2\n#### 2", True)
    candidate = records.Candidate(solution, None, {"orm": (0.5, 1.0), "sorm": ()})
    wrong = dataclasses.replace(candidate, first_false=1)
    problem = records.Problem("p", "How many?", "2")
    return records.Case(problem, -1, candidate, wrong, (wrong, candidate), {"global": wrong})


def test_a_case_is_columns_structs_and_maps_for_other_tools(tmp_path: Path):
    path = tmp_path / "cases.parquet"
    of_dev = dataclasses.replace(_case(), sft=None)
    for rows in ([of_dev, of_dev], [_case(), of_dev, _case()]):
        files.write_table(path, rows, records.Case)
        assert files.read_table(path, records.Case) == rows
    table = pq.read_table(path)
    assert table.column_names == ["problem", "located", "sft", "draft", "samples", "refinements"]
    row = table.to_pylist(maps_as_pydicts="strict")[0]
    assert row["draft"]["first_false"] == 1
    assert row["draft"]["values"] == {"orm": [0.5, 1.0], "sorm": []}
    assert row["refinements"]["global"]["solution"]["tokens"] == [5, 6, 2]
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_column_that_had_no_gaps_yet_is_read_and_the_other_way_round_is_not(tmp_path: Path):
    full = dataclasses.make_dataclass("Full", [("name", str), ("at", int)])
    gaps = dataclasses.make_dataclass("Gaps", [("name", str), ("at", int | None)])
    files.write_table(tmp_path / "full", [full("a", 1)], full)
    assert files.read_table(tmp_path / "full", gaps) == [gaps("a", 1)]
    files.write_table(tmp_path / "gaps", [gaps("a", None)], gaps)
    with pytest.raises(InputError, match="is not a table of Full"):
        files.read_table(tmp_path / "gaps", full)


def test_the_same_rows_are_the_same_bytes(tmp_path: Path):
    for name in ("a", "b"):
        files.write_table(tmp_path / name, [_case()], records.Case)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_field_that_no_column_can_hold_is_refused(tmp_path: Path):
    @dataclasses.dataclass
    class Wide:
        x: int | str | None

    with pytest.raises(TypeError, match="one type or None"):
        files.write_table(tmp_path / "wide", [Wide(1)], Wide)


def _rebuild(workdir: Path, stage: str) -> str:
    return f"glore run --config=… --workdir={workdir} --from={stage}"


@pytest.mark.parametrize("keep", [0, 3, 100])
def test_a_truncated_table_is_named_with_the_way_to_rebuild_it(tmp_path: Path, keep: int):
    path = tmp_path / "traces" / "cases.parquet"
    files.write_table(path, [_case()], records.Case)
    files.write_json(tmp_path / "traces" / files.MANIFEST, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError) as error:
        files.read_table(path, records.Case)
    assert str(path) in str(error.value)
    assert _rebuild(tmp_path, "traces") in str(error.value)


def test_a_table_of_other_records_is_named_with_both_columns(tmp_path: Path):
    path = tmp_path / "labels.partial" / "labels.parquet"
    files.write_table(path, [records.StepLabels("t", (1, 0))], records.StepLabels)
    with pytest.raises(InputError, match=r"not a table of Problem: has columns trace_id: string, labels") as error:
        files.read_table(path, records.Problem)
    assert _rebuild(tmp_path, "labels") in str(error.value)


def test_a_missing_table_and_broken_json_are_input_errors(tmp_path: Path):
    with pytest.raises(InputError, match="no such file"):
        files.read_table(tmp_path / "none.parquet", records.Problem)
    (tmp_path / "half.json").write_text('{"a": 1')
    with pytest.raises(InputError, match=r"half\.json: is not whole JSON"):
        files.read_json(tmp_path / "half.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path):
    path = tmp_path / "x.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.replacing(path) as file:
        file.write(b"new")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_an_input_error_that_names_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    path = tmp_path / "rows.parquet"
    files.write_table(path, [_case()], records.Case)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(InputError, match="No space left on device") as error:
        files.write_table(path, [_case()] * 9, records.Case)
    assert str(path) in str(error.value)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_the_place_of_the_folder_is_an_input_error(tmp_path: Path):
    (tmp_path / "there").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        files.write_text(tmp_path / "there" / "x.txt", "text")


def test_sha256_is_that_of_the_bytes(tmp_path: Path):
    files.write_bytes(tmp_path / "x", b"abc")
    assert files.sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_new_folder_is_whole_or_absent(tmp_path: Path):
    folder = tmp_path / "made"
    (tmp_path / "made.partial").mkdir()
    (tmp_path / "made.partial" / "left behind").touch()
    with pytest.raises(KeyError), files.new_folder(folder) as partial:
        (partial / "half").touch()
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with files.new_folder(folder) as partial:
        (partial / "a").touch()
        assert not folder.exists()
    assert [p.name for p in tmp_path.rglob("*")] == ["made", "a"]
    for taken in (folder, folder / "a"):
        with pytest.raises(InputError, match="there is something already"), files.new_folder(taken):
            pass
