"""When two answers written in LaTeX are equal, as math-verify and SymPy judge it, within a deadline.

Some expressions keep SymPy busy for hours, and what cannot be interrupted can only be ended: a judge is a process of
its own, which is started anew after it was ended. (math-verify's own deadline is an alarm, which works in no thread
but the main one, and not while SymPy computes in C.)

The process is a new Python, neither a fork, which would share JAX's threads, nor one of `multiprocessing`, which would
run the caller's script again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from glore_jax import answers
from glore_jax.errors import InputError

_START_SECONDS = 120.0  # to import SymPy on a busy machine
_LONGEST = 2000  # characters; nobody's final answer
_WORK = "import sys; from glore_jax import latex_answers as l; l.work(l.Connection(int(sys.argv[1])))"
# A number and words beside it. One letter or two are variables: 2x is not 2.
_PLAIN = re.compile(
    r"[$€£\u2212-]{0,2} ?(?:\d+ (?=\d+/))?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:(?<=\d)\.|\.\d+)?(?: ?/ ?\d+)?"
    r" ?%?\$?(?: [A-Za-z]{3,})*\.?"
)


class Judge:
    """Compares answers; a context manager, which ends its process.

    with Judge(seconds=2.0) as judge:
        judge.equal(r"\\frac{6}{8}", "0.75")  # True

    Attributes:
      seconds: how long one comparison may take; where it takes longer the answer counts as wrong.
      overdue: how many took longer so far.
    """

    def __init__(self, seconds: float = 5.0):
        self.seconds, self.overdue = seconds, 0
        self._process: Any = None
        self._pipe: Any = None

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def equal(self, given: str | None, expected: str) -> bool:
        """Whether a final answer equals the expected one: the same text, the same number, or equal as mathematics."""
        if given is None:
            return False
        if given.strip() == expected.strip():
            return True
        if _plain(given) and _plain(expected):
            return answers.equal(given, expected)
        if max(len(given), len(expected)) > _LONGEST:
            return False
        if self._process is None:
            self._start()
        try:
            self._pipe.send((given, expected))
            if self._pipe.poll(self.seconds):
                return self._pipe.recv()
            self.overdue += 1
        except (EOFError, OSError):  # the expression ended the process: out of memory or of stack
            pass
        self._end()
        return False

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            handle = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORK, str(handle)],
                pass_fds=[handle],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},  # it finds what is found here
                stdin=subprocess.DEVNULL,
            )
        problem = "it did not start in time"
        with contextlib.suppress(EOFError, OSError):
            if self._pipe.poll(_START_SECONDS):
                problem = self._pipe.recv()
        if problem:
            self._end()
            raise InputError(
                f"answers in LaTeX need math-verify ({problem}); install it with: pip install 'glore_jax[latex]'"
            )

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._pipe.close()
        self._process = None


def _plain(text: str) -> bool:
    """Whether a text is a number with at most words beside it, and no formula.

    >>> _plain("$1,234.50"), _plain("18 eggs"), _plain("2x"), _plain("1,2")
    (True, True, False, False)
    """
    return _PLAIN.fullmatch(text.strip()) is not None and answers.parse_number(text) is not None


def work(pipe: Connection) -> None:
    """Answers pairs until the other end closes; first says what is amiss, which is "" where nothing is."""
    logging.disable()  # math-verify warns that it runs without its own deadline
    try:
        import math_verify
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send("")
    with contextlib.suppress(EOFError, OSError):
        while True:
            pair = [math_verify.parse(_as_formula(text), parsing_timeout=0) for text in pipe.recv()]
            given, expected = pair
            pipe.send(bool(math_verify.verify(expected, given, timeout_seconds=0)))


def _as_formula(text: str) -> str:
    """math-verify reads LaTeX between dollar signs only."""
    return text if "$" in text else f"${text}$"
