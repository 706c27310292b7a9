"""docs/pods.md is what benchmarks/pods.py makes of the rows that were compiled, and of no others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pods(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import pods

    return pods


def test_the_page_is_that_of_the_rows(pods: Any):
    rows = json.loads(pods.ROWS.read_text(encoding="utf-8"))
    assert pods.page(rows) == pods.PAGE.read_text(encoding="utf-8")
    known = {" ".join(case) for case in pods.cases(list(pods.MODELS), list(pods.SLICES), list(pods.STAGES))}
    assert rows.keys() <= known


def test_what_was_not_compiled_is_named_as_that(pods: Any):
    page = pods.page({})
    assert "| 13b |" not in page
    assert "- 13b on v5e-256: sft, decode, orm, prefill, refiner\n" in page and "- 70b on v5p-16: sft, " in page
    about = {"model": "13b", "slice": "v5e-256", "stage": "sft"}
    page = pods.page({"13b v5e-256 sft": {**about, "error": "no room for rows"}})
    assert "| 13b | v5e-256 | sft | not possible |" in page
    assert "- 13b on v5e-256, sft: no room for rows\n" in page
    assert "- 13b on v5e-256: decode, orm, prefill, refiner\n" in page
    refused = {**about, "memory": None, "refusal": "20G of 15.75G", "change": None}
    page = pods.page({"13b v5e-256 sft": refused})
    assert "| 13b | v5e-256 | sft | does not fit |" in page
    assert "- 13b on v5e-256, sft: 20G of 15.75G; nothing that was tried fits\n" in page
    mended = {**refused, "change": {"typed": "--config.sharding.preset=fsdp"}}
    assert "20G of 15.75G; fits with `--config.sharding.preset=fsdp`\n" in pods.page({"13b v5e-256 sft": mended})


def test_a_row_says_what_the_compiler_said(pods: Any):
    row = {"model": "7b", "slice": "v5e-64", "stage": "decode", "fits": True, "tokens_per_second": 1234.6}
    row["memory"] = {
        "arguments": 2**30,
        "results": 0,
        "temporaries": 2**20,
        "peak": int(15.75 * 2**30 / 2),
        "beside": 0,
    }
    row["moved"] = {"sent": {"all-gather": 2**20, "all-reduce": 2**20}}
    row["roofline"] = {"seconds": 0.0123, "bound": "memory"}
    expected = ["7b", "v5e-64", "decode", "1.0 GiB", "1.0 MiB", "50%", "2.0 MiB", "12.3 ms", "memory", "1,235"]
    assert pods.cells(row) == expected
    assert pods.cells({**row, "fits": False})[5] == "50%, does not fit"
