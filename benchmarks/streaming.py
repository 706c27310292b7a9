"""Whether labelling streams: the stage `labels` over ten million rollouts of a student that is not there.

python benchmarks/streaming.py --rollouts=10000000

Runs the stage as `glore run` does: rollouts in parts, labels, balance and audit. Only the sampler is replaced. Problems
are those of the embedded task; of each question there are a right trace and four wrong ones, with one false result; and
a rollout is the rest of the worked solution, with a wrong answer where a hash of its name says so. Steps repeat more
often than a student's, so the files are smaller; in memory rollouts are as large.

Prints JSON: rollouts, seconds, and for each tenth of the rollouts their rate, also for each second of processor time
(where others compute on the same cores), and the peak of resident memory meanwhile; then the same of what comes after
the last one. Of the rollouts one part is in memory at a time. What grows is what is held for each trace, of which
there are 70 times fewer: 2.7 KB while prefixes are rolled out; 6 KB at most `before`, when traces are read, and 7 KB
`after`, of labels and audit. Twenty minutes for ten million on two cores that have other work too. Linux only.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import tempfile
import time
import types
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from glore_jax import configuration, files, pipeline
from glore_jax.pipeline import Stage
from glore_jax.records import Problem, Rollout, Solution
from glore_jax.stages import artifacts, recipes, step_labels
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import formats, pretrained
from glore_jax.text.tokenizers import Tokenizer

ROOT = Path(__file__).parents[1]
DIFFERENT = 400  # problems; more questions repeat them under other names
WRONG = 4  # traces a question, beside a right one
MENDED = 0.3  # chance of a rollout from a true prefix to be right; from a false one a tenth of that
OFF = 100  # wrong answers of rollouts: larger by 1 to so much

Encoded = tuple[tuple[int, ...], tuple[int, ...], str]  # tokens, step ends, text


class Student:
    """Solutions of a few problems, and the ends of solutions, each encoded once."""

    def __init__(self, tokenizer: Tokenizer, weights: Sequence[float]):
        self._tokenizer = tokenizer
        self._problems = [make_problem(0, "train", n, weights) for n in range(DIFFERENT)]
        self._traces = [list(self._variants(problem)) for problem in self._problems]
        self._ends = [self._parts(problem) for problem in self._problems]

    def size(self, prefixes: int) -> tuple[int, int]:
        """Of how many questions wrong traces have so many prefixes to continue, or a few more; and how many."""
        questions = found = 0
        while found < prefixes:
            found += WRONG * len(self._ends[questions % DIFFERENT][0])
            questions += 1
        return questions, found

    def write_problems(self, folder: Path, questions: int) -> None:
        found = (self._problems[n % DIFFERENT] for n in range(questions))
        rows = [dataclasses.replace(problem, id=f"{n}") for n, problem in enumerate(found)]
        files.write_table(folder / "train.parquet", rows, Problem)

    def write_traces(self, folder: Path, questions: int) -> None:
        rows = [
            dataclasses.replace(trace, id=f"{n}/{k}", problem_id=f"{n}")
            for n in range(questions)
            for k, (trace, _) in enumerate(self._traces[n % DIFFERENT])
        ]
        files.write_table(folder / "traces.parquet", rows, Solution)

    def rollout(self, trace: Solution, prefix: int, sample: int) -> Rollout:
        question, k = map(int, trace.id.split("/"))
        _, true = self._traces[question % DIFFERENT][k]
        drawn = zlib.crc32(f"{trace.id}/{prefix}/{sample}".encode())
        right = drawn < (MENDED if prefix <= true else MENDED / 10) * 2**32
        bodies, answers = self._ends[question % DIFFERENT]
        tokens, ends, text = bodies[prefix - 1]
        last, _, answer = answers[0 if right else 1 + drawn % OFF]
        written = (*tokens[:-1], *last)  # a body's end token goes
        whole = f"{text}\n{answer}" if text else answer
        return Rollout(trace.id, prefix, sample, written, (*ends, len(written) - 1), whole, right)

    def _variants(self, problem: Problem) -> Iterator[tuple[Solution, int]]:
        """The wrong traces and the right one, each with the number of steps before its first false one."""
        lines = problem.solution.split("\n")
        computed = [i for i, line in enumerate(lines) if "<<" in line]
        for k in range(WRONG):
            at = computed[k % len(computed)]
            false = [*lines[:at], _plus(lines[at], k + 1), *lines[at + 1 : -1], _plus(lines[-1], k + 1)]
            yield Solution("", "", *self._encode(false), False), at
        yield Solution("", "", *self._encode(lines), True), len(lines)

    def _parts(self, problem: Problem) -> tuple[list[Encoded], list[Encoded]]:
        """What rollouts are put together from: the steps behind each prefix, and last lines, of which one is right."""
        *lines, last = problem.solution.split("\n")
        bodies = [self._encode(lines[i:]) for i in range(1, len(lines) + 1)]
        return bodies, [self._encode([_plus(last, off)]) for off in range(OFF + 1)]

    def _encode(self, lines: Sequence[str]) -> Encoded:
        tokens, ends = formats.encode_solution(self._tokenizer, lines)
        return tuple(tokens), ends, "\n".join(lines)


def _plus(line: str, more: int) -> str:
    """A line with its result made larger, in the annotation and behind it."""
    return re.sub(r"\d+(?=>>|$)", lambda found: str(int(found[0]) + more), line)


class Simulated:
    """In the place of `sampling.rollouts.Rollouts`: what is asked for is done at once."""

    def __init__(self, student: Student, advance: Callable[[int, int], None], done: Callable[[], None]):
        self._student, self._advance, self._done = student, advance, done
        self._asked: deque[tuple[Solution, int, int]] = deque()

    def ask(self, trace: Solution, prefix: int, samples: Sequence[int], more: bool = False) -> None:
        self._asked.extend((trace, prefix, sample) for sample in samples)

    def give_up(self, trace: Solution, prefix: int, samples: Sequence[int]) -> None:
        for sample in samples:
            self._asked.remove((trace, prefix, sample))

    def __iter__(self) -> Iterator[Rollout]:
        while self._asked:
            rollout = self._student.rollout(*self._asked.popleft())
            self._advance(1, len(rollout.tokens))
            self._done()
            yield rollout


class Gauge:
    """Rate and peak of resident memory of each tenth of so many rollouts."""

    def __init__(self, total: int):
        self._total, self._done = total, 0
        self._at, self._worked = time.monotonic(), time.process_time()
        self.tenths: list[dict[str, float]] = []

    def rolled(self) -> None:
        self._done += 1
        if self._done * 10 >= self._total * (len(self.tenths) + 1):
            mark = self.mark()
            size = self._total / 10
            rate, of_work = (round(size / max(mark[key], 1e-3)) for key in ("seconds", "cpu_seconds"))
            own = {"rollouts_per_second": rate, "rollouts_per_cpu_second": of_work}
            self.tenths.append(own | {"peak_mib": mark["peak_mib"]})

    def mark(self) -> dict[str, float]:
        """Seconds, those of the processor, and peak of resident memory since the last mark."""
        before = self._at, self._worked
        self._at, self._worked = time.monotonic(), time.process_time()
        seconds, cpu = round(self._at - before[0], 3), round(self._worked - before[1], 3)
        return {"seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak_mib()}


def peak_mib() -> int:
    """Peak of resident memory since the last call; Linux forgets it when told to."""
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) >> 10


def simulate(rollouts: int, workdir: Path) -> dict[str, Any]:
    """Runs the stage `labels` in a work folder over so many rollouts, or a few more; what to print."""
    config: Any = configuration.load(str(ROOT / "configs" / "arithmetic.py"))
    config.labels.update({"problems": 0, "wrong_per_problem": WRONG, "right_per_problem": 1})
    tokenizer = pretrained.reopen(ROOT / "glore_jax" / "assets" / "arithmetic_base")
    student = Student(tokenizer, config.task.step_weights)
    questions, prefixes = student.size(-(-rollouts // config.labels.rollouts))
    total = config.labels.rollouts * prefixes
    gauge, marks = Gauge(total), []

    def rolling(*arguments: Any) -> Simulated:
        *_, advance, _journal = arguments
        if not marks:
            marks.append(gauge.mark())
        return Simulated(student, advance, gauge.rolled)

    chain = [
        _given("problems", lambda folder: student.write_problems(folder, questions)),
        _given("base", tokenizer.save),
        _given("expert_iteration", lambda folder: None),
        _given("traces", lambda folder: student.write_traces(folder, questions)),
        next(stage for stage in recipes.GLORE if stage.name == "labels"),
    ]
    engine = mock.patch.object(artifacts, "read_engine", lambda *_: types.SimpleNamespace(together=False))
    with engine, mock.patch.object(step_labels, "Rollouts", rolling):
        pipeline.run(config, workdir, chain)
    found = {"rollouts": total, "traces": questions * (WRONG + 1), "before": marks[0], "tenths": gauge.tenths}
    return found | {"after": gauge.mark()}


def _given(name: str, write: Callable[[Path], Any]) -> Stage:
    """A stage that others read, made beforehand."""
    return Stage(name, (), lambda context: write(context.folder) or {}, "simulated", ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=10_000_000)
    arguments = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = simulate(arguments.rollouts, Path(folder))
    print(json.dumps(found | {"seconds": round(time.monotonic() - began)}))


if __name__ == "__main__":
    main()
