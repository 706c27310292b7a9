"""Answers in LaTeX are equal as mathematics, and nothing written there crashes or stalls the judge."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from glore_jax import latex_answers
from glore_jax.errors import InputError
from glore_jax.latex_answers import Judge

TOWER = "9^{9^{9^{9}}}"  # more digits than there are atoms


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(seconds=20.0) as made:
        yield made


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (r"\frac{6}{8}", "0.75"),
        (r"\frac{3}{4}", "3/4"),
        (r"$\frac{1}{2}$", r"\dfrac12"),
        (r"2\sqrt{2}", r"\sqrt{8}"),
        (r"x^2+2x+1", r"(x+1)^2"),
        (r"\{1,2\}", r"\{2,1\}"),
        ("1,250", "$1250.00"),
        ("2 1/2 cups", "2.5"),
        ("-.5 %", "\N{MINUS SIGN}1/2"),
        (r"\text{Evelyn}", r"\text{Evelyn}"),
    ],
)
def test_equal_as_mathematics(judge: Judge, given_: str, expected: str):
    assert judge.equal(given_, expected)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (r"\frac{1}{2}", "2"),
        (r"\sqrt{2}", "2"),
        ("1", "18"),
        (r"x+1", "x"),
        ("2x", "2"),
        ("10x", "10y"),
        ("x/2", "2"),
        ("5!", "5"),
        ("1,2", "12"),
        ("(1,2)", "(2,1)"),
        ("", r"\pi"),
        (None, r"\pi"),
        (r"\frac{1}{", r"\pi"),
        ("\\" * 3000, r"\pi"),
    ],
)
def test_a_part_of_the_answer_is_not_the_answer(judge: Judge, given_: str | None, expected: str):
    assert not judge.equal(given_, expected)


def test_what_takes_too_long_is_wrong_and_the_next_answer_is_judged():
    with Judge(seconds=4.0) as judge:
        assert judge.equal(r"\frac{6}{8}", "0.75")
        started = time.monotonic()
        assert not judge.equal(TOWER, r"\pi")
        assert time.monotonic() - started < 60
        assert judge.overdue == 1
        assert judge.equal(r"\frac{6}{9}", r"\frac{2}{3}")


def test_a_judge_works_in_any_thread():
    found: list[bool] = []

    def work() -> None:
        with Judge(seconds=20.0) as judge:
            found.append(judge.equal(r"\frac{6}{8}", "0.75"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]


def test_a_judge_that_died_is_started_anew():
    with Judge(seconds=20.0) as judge:
        assert judge.equal(r"\frac{6}{8}", "0.75")
        judge._process.kill()
        judge._process.wait()
        assert not judge.equal(r"\frac{6}{8}", "0.75")
        assert judge.equal(r"\frac{6}{8}", "0.75")
        assert judge.overdue == 0


def test_without_math_verify_the_installation_is_named(monkeypatch: pytest.MonkeyPatch):
    without = (
        "import sys; from multiprocessing.connection import Connection as C; C(int(sys.argv[1])).send('no such module')"
    )
    monkeypatch.setattr(latex_answers, "_WORK", without)
    with Judge() as judge, pytest.raises(InputError, match=r"need math-verify \(no such module\).*glore_jax\[latex\]"):
        judge.equal(r"\frac{6}{8}", "0.75")


def test_a_script_needs_no_guard_around_what_it_does(tmp_path: Path):
    """As a script is written that uses the judge once; `multiprocessing` would run all of it again in the judge."""
    script = tmp_path / "script.py"
    script.write_text(
        "from glore_jax.latex_answers import Judge\n"
        "print('once')\n"
        "with Judge(seconds=60.0) as judge:\n"
        "    print(judge.equal(r'\\frac{6}{8}', '0.75'))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout.split(), done.returncode) == (["once", "True"], 0), done.stderr


COMMANDS = (r"\frac", r"\sqrt", r"\int", r"\sum", r"\log", r"\pi", r"\infty", r"\begin{pmatrix}", r"\text{m}", r"\\")
PARTS = st.sampled_from([*COMMANDS, *"{}^_+-=()$/&,!% ", "1", "23", "x", "é", "\x00", "\ud800"])


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(PARTS, max_size=12).map("".join) | st.text(max_size=30), st.sampled_from([r"\frac{3}{4}", "12", "x^2"]))
@example("", r"\pi")
@example("{" * 1500, r"\pi")
@example("1" * 1900, r"\frac{1}{2}")
@pytest.mark.timeout(600)
def test_any_text_is_judged_in_time(judge: Judge, text: str, expected: str):
    assert judge.equal(text, expected) in (True, False)
    assert judge.equal(text, text)
