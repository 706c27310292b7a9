"""When two answers written in LaTeX are equal, as math-verify and SymPy judge it, within a deadline.

Some expressions keep SymPy busy for hours, and what cannot be interrupted can only be ended: a judge is a process of
its own, which is started anew after it was ended. (math-verify's own deadline is an alarm, which works in no thread
but the main one, and not while SymPy computes in C.)
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
from multiprocessing.connection import Connection
from typing import Any

from glore_jax import answers
from glore_jax.errors import InputError

_START_SECONDS = 120.0  # to import SymPy on a busy machine
_LONGEST = 2000  # characters; nobody's final answer


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
        context = multiprocessing.get_context("spawn")  # a fork would share JAX's threads
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
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
            self._process.join()
            self._process.close()
            self._pipe.close()
        self._process = None


def _plain(text: str) -> bool:
    """Whether a text is a number with at most a word beside it, and no formula."""
    return answers.parse_number(text) is not None and not set(text) & set("\\{}()[]^_=*+<>|√π")


def _work(pipe: Connection) -> None:
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
