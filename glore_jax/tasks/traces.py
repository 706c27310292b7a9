"""Solutions with verdicts, as others publish them: five formats in, one record out.

| format | a row has | where it is from |
| --- | --- | --- |
| `traces` | `id`, `question`, `steps` (or `solution`) | this package's own; verdicts are optional |
| `processbench` | `id`, `problem`, `steps`, `label` | ProcessBench (Zheng et al., 2024) |
| `prm800k` | `question` and `label`, both objects | PRM800K (Lightman et al., 2023) |
| `math_shepherd` | `input`, `label`, `task` | Math-Shepherd (Wang et al., 2023) |
| `bigbench_mistake` | `input`, `steps`, `mistake_index` | BIG-Bench Mistake (Tyen et al., 2023) |

The first row tells the format, by its columns. Steps are counted from 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from glore_jax.errors import InputError
from glore_jax.records import Judged
from glore_jax.tasks import rows, steps
from glore_jax.tasks.step_formats import STEP_TAG

Row = dict[str, Any]
_FINISHES = ("solution", "found_error", "give_up", "bad_problem")


def read(path: str | Path, only: str = "") -> list[Judged]:
    """The solutions of a file: JSON lines, a JSON list or Parquet, gzipped or not.

    Args:
      only: the one format that will do; "" for any of `FORMATS`.

    Raises:
      InputError: with file and row: no known format, a column missing or of another type, an empty step, a verdict
        on a step that is not there, or an id that comes twice.
    """
    wanted = {name: FORMATS[name] for name in ([only] if only else FORMATS)}
    expected = "; or ".join(f"{', '.join(columns)} ({name})" for name, (columns, _) in wanted.items())
    found: dict[str, Judged] = {}
    columns: tuple[str, ...] = ()
    parse: Callable[[Row, str], Judged] | None = None
    for where, row in rows.read(path, expected):
        if parse is None:
            columns, parse = next((known for known in wanted.values() if _has(row, known[0])), ((), None))
        if parse is None or not _has(row, columns):
            needed = ", ".join(columns) or expected
            raise InputError(f"{where}: expected the columns {needed}; found {', '.join(row) or 'none'}")
        judged = parse(row, where)
        if judged.id in found:
            raise InputError(f"{where}: the id {judged.id!r} again; ids tell solutions apart, give each its own")
        found[judged.id] = judged
    return list(found.values())


def _has(row: Row, columns: tuple[str, ...]) -> bool:
    """Whether a row has all columns; `question.problem` is one within an object."""
    for column in columns:
        value: Any = row
        for name in column.split("."):
            if not isinstance(value, dict) or name not in value:
                return False
            value = value[name]
    return True


def _text(row: Row, column: str, where: str) -> str:
    """A column that must hold text.

    Raises:
      InputError: it is missing, blank or no text.
    """
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: expected text in {column!r}, found {value!r:.80}")
    return value


def _id(row: Row, where: str) -> str:
    value = row.get("id")
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise InputError(f"{where}: expected text or a whole number in 'id', found {value!r:.80}")
    return str(value)


def _place(where: str) -> str:
    """An id for a row of a file without ids: `line-3`."""
    return "-".join(where.split()[-2:])


def _steps(found: Any, where: str) -> tuple[str, ...]:
    """Steps as a tuple.

    Raises:
      InputError: no list, an empty one, or with a step that is no text or blank.
    """
    if not isinstance(found, list) or not found:
        raise InputError(f"{where}: expected 'steps' to be a list of one text or more, found {found!r:.80}")
    for i, step in enumerate(found):
        if not isinstance(step, str):
            raise InputError(f"{where}: expected text in step {i} (counted from 0), found {step!r:.80}")
        if not step.strip():
            raise InputError(
                f"{where}: step {i} (counted from 0) is empty, so no value can be read at its end; remove the row, or "
                "the step, and then count the verdicts on later steps anew"
            )
    return tuple(found)


def _index(row: Row, column: str, count: int, where: str) -> int:
    """The number of a first false step, -1 for none.

    Raises:
      InputError: it is no whole number, or of no step.
    """
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < count:
        raise InputError(
            f"{where}: expected a step from 0 to {count - 1}, or -1 for none, in {column!r}, found {value!r:.80}"
        )
    return value


def _verdict(row: Row, column: str, where: str) -> bool | None:
    """true, false, or None where the column is null or absent.

    Raises:
      InputError: it holds something else.
    """
    value = row.get(column)
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{where}: expected true, false or null in {column!r}, found {value!r:.80}")
    return value


def trace(row: Row, where: str) -> Judged:
    """A row of this package's own format.

    Optional are `first_error` (0-based, -1 none, null unknown), `answer_correct`, `answer` (the question's right one;
    also called `gold`), `generator` and `source`, which stands in front of the id, for ids of several sources may be
    the same. A row without `steps` has a `solution`, whose lines are the steps (`tasks/steps.py`).
    """
    name = "/".join([*([_text(row, "source", where)] if row.get("source") else []), _id(row, where)])
    if row.get("steps") is None:
        if row.get("first_error") is not None:
            raise InputError(f"{where}: 'first_error' counts steps, and there are no 'steps'; give them, or null")
        found = _steps(steps.split(_text(row, "solution", where)), where)
    else:
        found = _steps(row["steps"], where)
    false = None if row.get("first_error") is None else _index(row, "first_error", len(found), where)
    right = _verdict(row, "answer_correct", where)
    generator, subset = (str(row.get(column) or "") for column in ("generator", "source"))
    answer = next((str(row[column]) for column in ("answer", "gold") if row.get(column) is not None), "")
    return Judged(name, _text(row, "question", where), found, false, (), right, generator, subset, answer.strip())


def processbench(row: Row, where: str) -> Judged:
    """A row of ProcessBench; the subset is what stands in front of the number in its id (`math-17`)."""
    found, name = _steps(row.get("steps"), where), _id(row, where)
    return Judged(
        name,
        _text(row, "problem", where),
        found,
        first_false=_index(row, "label", len(found), where),
        right=_verdict(row, "final_answer_correct", where),
        generator=str(row.get("generator") or ""),
        subset=name.rpartition("-")[0],
    )


def prm800k(row: Row, where: str) -> Judged:
    """A row of PRM800K: the solution that its labeller followed, or, in phase 2, the one that was written beforehand.

    Ratings are 1, 0 (neutral, which is no error) and -1. In phase 2 labels end with the first error. In phase 1 a step
    may be the labeller's own, where all that the model offered were wrong: it is true. `finish_reason` is `solution`
    where the last step gives the right answer; otherwise nobody says.
    """
    label, question = row["label"], row["question"]
    finish, labelled = label.get("finish_reason"), label["steps"]
    if finish not in _FINISHES:
        raise InputError(f"{where}: expected label.finish_reason to be one of {', '.join(_FINISHES)}, found {finish!r}")
    if not isinstance(labelled, list) or not all(isinstance(step, dict) for step in labelled):
        raise InputError(f"{where}: expected label.steps to be a list of objects, found {labelled!r:.80}")
    written = question.get("pre_generated_steps")
    try:
        path = _written(_steps(written, where), labelled) if written else _followed(labelled)
        labels = tuple(-1 if rating is None else int(rating >= 0) for _, rating in path)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(
            f"{where}: expected each of label.steps to have completions (a list with text and rating each), "
            f"human_completion and chosen_completion, as PRM800K has them ({type(error).__name__}: {error})"
        ) from error
    false = labels.index(0) if 0 in labels else -1 if finish == "solution" else None
    return Judged(
        _place(where),
        _text(question, "problem", where),
        _steps([text for text, _ in path], where),
        first_false=false,
        labels=labels,
        right=True if finish == "solution" else None,
        subset=f"phase {2 if written else 1}",
        answer=str(question.get("ground_truth_answer") or ""),
    )


def _written(texts: Sequence[str], labelled: list[Row]) -> list[tuple[str, int | None]]:
    """Steps written beforehand, with the rating of each that was reached."""
    ratings = [
        next((option["rating"] for option in step["completions"] or () if option["text"] == text), None)
        for text, step in zip(texts, labelled, strict=False)  # labels end with the first error
    ]
    return [(text, ratings[i] if i < len(ratings) else None) for i, text in enumerate(texts)]


def _followed(labelled: list[Row]) -> list[tuple[str, int | None]]:
    """Steps that the labeller chose or wrote, with their ratings; it ends where there is neither."""
    path: list[tuple[str, int | None]] = []
    for step in labelled:
        if step["chosen_completion"] is not None:
            chosen = step["completions"][step["chosen_completion"]]
            path.append((chosen["text"], chosen["rating"]))
        elif step["human_completion"] is not None:
            path.append((step["human_completion"]["text"], 1))
        else:
            break
    return path


def math_shepherd(row: Row, where: str) -> Judged:
    """A row of Math-Shepherd: `input` has a tag where `label` has + or -, each at the end of a step.

    A label says whether any of several completions of the prefix came to the right answer. The last step has nothing
    left to complete, so its label is the final answer's.
    """
    tagged, label = _text(row, "input", where), _text(row, "label", where)
    pieces = tagged.split(STEP_TAG)
    start = pieces[0].find("Step 1:")
    if len(pieces) < 2 or pieces[-1].strip() or start < 1:
        raise InputError(
            f"{where}: expected 'input' to be a question, then steps from 'Step 1:' on, each with {STEP_TAG!r} at its "
            f"end, found {tagged!r:.80}"
        )
    signs, at = "", 0
    for piece in pieces[:-1]:
        sign = label[at + len(piece) : at + len(piece) + 1]
        if label[at : at + len(piece)] != piece or sign not in ("+", "-"):
            raise InputError(
                f"{where}: expected 'label' to be 'input' with + or - for each {STEP_TAG!r}; they differ after "
                f"{label[max(at - 20, 0) : at]!r}"
            )
        signs, at = signs + sign, at + len(piece) + 1
    labels = tuple(int(sign == "+") for sign in signs)
    return Judged(
        _place(where),
        pieces[0][:start].strip(),
        _steps([pieces[0][start:].strip(), *(piece.strip() for piece in pieces[1:-1])], where),
        first_false=labels.index(0) if 0 in labels else -1,
        labels=labels,
        right=bool(labels[-1]),
        subset=str(row.get("task") or ""),
    )


def bigbench_mistake(row: Row, where: str) -> Judged:
    """A row of BIG-Bench Mistake; `mistake_index` is null where there is no mistake.

    The final answer is right where `answer` and `target` are the same text, as that data set has it; a row without
    an answer is wrong, one without a target is not known.
    """
    found, answer, target = _steps(row.get("steps"), where), row.get("answer"), row.get("target")
    false = -1 if row["mistake_index"] is None else _index(row, "mistake_index", len(found), where)
    right = None if target is None else str(answer).strip() == str(target).strip()
    said = "" if target is None else str(target).strip()
    return Judged(_place(where), _text(row, "input", where), found, false, right=right, answer=said)


FORMATS: dict[str, tuple[tuple[str, ...], Callable[[Row, str], Judged]]] = {
    "processbench": (("id", "problem", "steps", "label"), processbench),
    "prm800k": (("question.problem", "label.steps"), prm800k),
    "math_shepherd": (("input", "label", "task"), math_shepherd),
    "bigbench_mistake": (("input", "steps", "mistake_index"), bigbench_mistake),
    "traces": (("id", "question"), trace),
}
