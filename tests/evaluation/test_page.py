"""The report folder: whole files, a self-contained page, escaped text; and the terminal's table."""

from __future__ import annotations

import dataclasses
import html.parser
import io
import json
import re

import pytest
from rich.console import Console

from glore_jax.decisions import system
from glore_jax.errors import InputError
from glore_jax.evaluation import page, tables
from glore_jax.evaluation.runs import Run
from glore_jax.records import Candidate, Case
from glore_jax.tasks.arithmetic import first_false_step, make_problem

HOSTILE = "<script>alert('x')</script>"
AUDIT = {
    "sorm_label_accuracy": {"correct": 5, "count": 6, "per_trace": [[3, 3], [2, 3]]},
    "ablation": [{"name": "raw <any> of K", "accuracy": 0.5, "per_trace": [[2, 3], [1, 3]]}],
    "rates": [{"stage": s, "prefix": i, "positive": 3, "count": 4} for s in ("raw", "balance") for i in (1, 2)],
}
CURVES = {"sft": [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}], "empty": []}
INFO = {"command": "glore run --config=c.py", "revision": "abc1234", "config": {"seed": 7, "note": HOSTILE}}


@pytest.fixture
def cases(candidate, case):
    """Real problems with their gold solution as one draft and a corrupted one as another."""
    made = []
    for i in range(6):
        problem = make_problem(0, "test", i, [1] * 7)
        gold = problem.solution.split("\n")
        broken = [*gold[:-1], f"#### {int(problem.answer) + 1}"]

        def solved(lines, facts=problem.facts, answer=problem.answer):
            false = first_false_step(facts, lines)
            right = lines[-1] == f"#### {answer}"
            value = 0.9 if right else 0.2
            values = [0.9] * (len(lines) - 1) + [value]
            return candidate(first_false=false, orm=values, right=right, text="\n".join(lines))

        right, wrong = solved(gold), solved(broken)
        draft = right if i % 2 else wrong
        rewrite = wrong if i == 3 else right if i == 2 else draft
        walked = case(draft, rewrite, rewrite, samples=[right, wrong, right], located=-1 if i % 2 else len(gold) - 1)
        made.append(dataclasses.replace(walked, problem=problem))
    return made


class Checker(html.parser.HTMLParser):
    """Collects tags and their attributes, and that what opens is closed."""

    VOID = ("meta", "br", "input")

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def report(tmp_path, cases, thresholds):
    metrics = page.write_report(tmp_path / "report", Run(cases, thresholds, AUDIT, CURVES, INFO))
    return tmp_path / "report", metrics


def test_report_files_are_whole(report):
    folder, metrics = report
    assert sorted(path.name for path in folder.iterdir()) == ["claims.md", "index.html", "metrics.json"]
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert "not measured" not in (folder / "claims.md").read_text()


def test_page_is_self_contained_and_well_formed(report):
    text = (report[0] / "index.html").read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    assert not {"link", "img", "iframe", "object"} & set(checker.tags)
    assert not [name for name, _ in checker.attributes if name in ("src", "srcset", "action")]
    links = [value for name, value in checker.attributes if name in ("href", "xlink:href")]
    assert all(value.startswith("#") for value in links)
    assert "http:" not in text and "https:" not in text and "@import" not in text
    assert "default-src 'none'" in text
    ids = [value for name, value in checker.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links} <= set(ids)
    widths = [value for name, value in checker.attributes if name == "width"]
    assert not [value for value in widths if value.endswith("pt")]  # plots take the page's width


def test_page_shows_figures_plots_problems_and_origin(report):
    text = (report[0] / "index.html").read_text()
    metrics = report[1]
    assert all(row["name"] in text for row in metrics["rows"])
    # seven curves and one loss: a stage without steps has no plot
    assert text.count("<svg") == 7 + 1
    assert text.count('<details class="case"') == 6
    assert "← SORM: first wrong step" in text
    assert "glore run --config=c.py" in text and "abc1234" in text and "&#34;seed&#34;: 7" in text
    assert 'style="--v:0.200"' in text
    assert re.search(r'class="mark false"[^>]*>✗', text)


def test_model_text_is_escaped(tmp_path, cases, thresholds, candidate):
    evil = candidate(2, first_false=0, orm=(0.5, 0.4), text=f"{HOSTILE}\n#### 2")
    problem = dataclasses.replace(cases[0].problem, question=f"How {HOSTILE}?", id='"><b>')
    hostile = dataclasses.replace(cases[0], problem=problem, draft=evil, refinements={"global": evil, "local": evil})
    page.write_report(tmp_path, Run([hostile, *cases], thresholds, AUDIT, {HOSTILE: CURVES["sft"]}, INFO))
    text = (tmp_path / "index.html").read_text()
    assert HOSTILE not in text and "<b>" not in text.split("<main>")[1]
    assert text.count("&lt;script&gt;") >= 5
    assert text.count("<script>") == 1  # the page's own filter


def test_an_interrupted_write_leaves_the_old_report(report, cases, thresholds, monkeypatch):
    folder, _ = report
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def refuse(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(InputError, match="No space left"):
        page.write_report(folder, Run(cases[:3], thresholds, AUDIT, CURVES, INFO))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def choose(found: Case) -> Candidate:
    return system(found, 0.0)


def test_the_browser_holds_some_of_every_kind(candidate, case):
    right, wrong = candidate(1, orm=(0.9,)), candidate(2, 0, orm=(0.1,))
    liked = candidate(2, 0, orm=(0.95,))
    many = [case(right) for _ in range(50)] + [case(wrong), case(wrong, globally=right), case(right, locally=liked)]
    picked = page.pick(many, choose, limit=6)
    assert [name for name, _ in picked].count("right") == 3
    assert {name for name, _ in picked} == {"right", "fixed", "harmed", "unfixed"}
    assert len(page.pick(many, choose)) == 53


def test_steps_are_marked_against_the_oracle(candidate):
    broken = candidate(2, first_false=1, orm=(0.9, 0.4, 0.3), text="a\nb\n#### 2")
    assert [(s["text"], s["value"], s["mark"]) for s in page.steps_of(broken, "sorm")] == [
        ("a", 0.9, "true"),
        ("b", 0.4, "false"),
        ("#### 2", 0.3, "after"),
    ]
    blind = candidate(1, first_false=None, orm=(0.9,), text="#### 1")
    assert [(s["value"], s["mark"]) for s in page.steps_of(blind, "another model")] == [(None, None)]
    assert page.steps_of(candidate(2, orm=(), text=""), "sorm") == []


def test_a_page_without_oracle_samples_or_curves(tmp_path, candidate, case, thresholds):
    page.write_report(tmp_path, Run([case(candidate(1, first_false=None))], thresholds))
    text = (tmp_path / "index.html").read_text()
    assert "not measured" in text and "step_accuracy" not in text.split("All figures")[1].split("<footer>")[0]


def test_terminal_report_names_every_row_and_claim(report):
    stream = io.StringIO()
    tables.print_report(report[1], Console(file=stream, width=120))
    text = stream.getvalue()
    assert all(row["name"] in text for row in report[1]["rows"])
    assert text.count("holds") + text.count("fails") >= len(report[1]["claims"])
    assert "raw <any> of K" in text


def test_figures_are_percent_and_have_no_negative_zero():
    assert tables.figure(0.5) == "50.0"
    assert tables.figure(-0.0001, signed=True) == tables.figure(0.0, signed=True) == "0.0"
    assert tables.figure(-0.05, signed=True) == "-5.0"
    assert tables.span(None, None) == ""
