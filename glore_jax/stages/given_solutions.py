"""Stages of the recipe `label`: step labels for anyone's solutions, from anyone's model.

The model continues prefixes as the student does those of its own traces (`stages/step_labels.py`), so the labels say
what *this* model can still mend.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glore_jax import answers, files, final_answers
from glore_jax.errors import InputError
from glore_jax.parallel import hosts
from glore_jax.pipeline import StageContext
from glore_jax.records import Judged, Problem, Rollout, Solution, StepLabels
from glore_jax.stages import artifacts, judged_traces, scoring, step_labels, taking_base
from glore_jax.stages.rollout_parts import RolloutParts
from glore_jax.tasks import step_formats
from glore_jax.tasks import traces as published
from glore_jax.tasks.splits import same_question
from glore_jax.text import formats

_SOLUTIONS = "solutions.parquet"
_SHOWN = 3  # names in an error


def files_of(task: Any) -> list[Path]:
    """The user's files that `problems` reads."""
    return [Path(str(path)) for path in task.solutions]


def problems(context: StageContext) -> dict[str, Any]:
    """Reads the solutions; the questions, each once with its answer, stand beside them.

    Raises:
      InputError: no file; an id that two have; a solution without the right answer to its question; a question with
        two answers; solutions of which nobody can say whether they are right.
    """
    found: dict[str, Judged] = {}
    for path in files_of(context.config.task):
        for row in published.read(path):
            if row.id in found:
                raise InputError(f"{path}: another file has the id {row.id!r} too; make them differ")
            found[row.id] = row
    if not found:
        raise InputError("task.solutions is empty; name a file of solutions with --input=FILE")
    rows = _judge(list(found.values()), context.config.task.answers)
    questions: dict[str, Problem] = {}
    for row in rows:
        problem = Problem(f"question-{len(questions)}", row.question, row.answer)
        known = questions.setdefault(same_question(row.question), problem)
        if not final_answers.equal(row.answer, known.answer):
            raise InputError(
                f"solution {row.id!r}: its question has the answer {known.answer!r} elsewhere, and {row.answer!r} here"
            )
    files.write_table(context.folder / _SOLUTIONS, rows, Judged)
    files.write_table(context.folder / "train.parquet", list(questions.values()), Problem)
    return {"solutions": len(rows), "questions": len(questions), "right": sum(bool(r.right) for r in rows) / len(rows)}


def _judge(rows: Sequence[Judged], kind: str) -> list[Judged]:
    """The solutions with their verdicts: the one that is given, or what the final answer says.

    The right answers are written as answers of their `kind`, of `final_answers.KINDS`, are. Where others end with
    `#### ANSWER`, one that does not has no answer, and is wrong.
    """
    final_answers.check(kind)
    for row in rows:
        if not row.answer.strip() or (kind == "number" and answers.parse_number(row.answer) is None):
            raise InputError(
                f"solution {row.id!r}: expected the right answer to its question in 'answer', as {kind}, found "
                f"{row.answer!r}; rollouts are judged by it (task.answers: one of {', '.join(final_answers.KINDS)})"
            )
    rows = [dataclasses.replace(row, answer=final_answers.written(row.answer, kind)) for row in rows]
    texts = ["\n".join(scoring.lines(row)) for row in rows]
    open_ones = [row for row in rows if row.right is None]
    if open_ones and all(answers.final_answer(text) is None for text in texts):
        raise InputError(
            f"no solution ends with '{answers.MARKER} ANSWER', and of {len(open_ones):,} nobody says whether they are "
            f"right ({open_ones[0].id!r} first); give 'answer_correct'"
        )
    return [
        dataclasses.replace(row, right=formats.is_right(text, row.answer)) if row.right is None else row
        for row, text in zip(rows, texts, strict=True)
    ]


def _read(context: StageContext) -> tuple[list[Judged], list[Solution]]:
    rows = files.read_table(context.input("problems") / _SOLUTIONS, Judged)
    tokenizer, questions = artifacts.read_tokenizer(context), artifacts.read_problems(context, "train")
    return rows, judged_traces.as_solutions(tokenizer, questions, rows)


def base(context: StageContext) -> dict[str, Any]:
    """Takes the model that continues prefixes; checks that each prefix fits."""
    if not context.config.base.path:
        raise InputError("base.path is empty; name the folder of a language model with --model=FOLDER")
    folder = taking_base.folder_of(context.config)
    # The marks are for refiners: a published model gets no rows for them, which it could not tell from words.
    marks = "text" if (folder / "config.json").is_file() else "tokens"
    tokenizer = taking_base.read_tokenizer(folder, marks, context.config.base.chat)
    rows = files.read_table(context.input("problems") / _SOLUTIONS, Judged)
    questions = artifacts.read_problems(context, "train")
    room, sizes = max(context.config.sampling.buckets), {}
    prompts = {p.id: len(formats.encode_prompt(tokenizer, p.question)) for p in questions}
    for trace in judged_traces.as_solutions(tokenizer, questions, rows):
        sizes[trace.id] = prompts[trace.problem_id] + (trace.step_ends[-2] if trace.num_steps > 1 else 0)
    if long := [name for name, size in sizes.items() if size > room]:
        named = ", ".join(f"{name!r} ({sizes[name]})" for name in long[:_SHOWN])
        raise InputError(
            f"{len(long)} solutions have prefixes of more than {room} tokens: {named}{', ...' if long[_SHOWN:] else ''}"
            "; raise the last of sampling.buckets, or remove them"
        )
    return taking_base.take(context, tokenizer) | {"longest_prefix": max(sizes.values())}


def labels(context: StageContext) -> dict[str, Any]:
    """Rolls out prefixes and labels steps; equal solutions to a question are labelled once."""
    rows, found = _read(context)
    chosen = [trace for name, trace in _representatives(found).items() if name == trace.id]
    questions = {p.id: p for p in artifacts.read_problems(context, "train")}
    order = {name: n for n, name in enumerate(questions)}
    chosen.sort(key=lambda trace: order[trace.problem_id])  # those of a question together, as parts of rollouts want it
    counts = step_labels.roll_out(context, "base", questions, chosen)
    if not hosts.lead():
        return counts
    made = step_labels.label(context, chosen)
    with RolloutParts(context.folder).shown(context, "answers") as rollouts:
        texts = (rollout.text for mine in rollouts.values() for rollout in mine)
        unanswered = sum(answers.final_answer(text) is None for text in texts)
    if unanswered and unanswered == rollouts.count:
        raise InputError(
            f"none of {unanswered:,} rollouts ends with '{answers.MARKER} ANSWER', so none can be right: teach the "
            f"model to write its answer so (the stage sft of `glore run` does), or raise sampling.max_new_tokens"
        )
    names = {trace.id for trace in chosen}
    false = {r.id: r.first_false for r in rows if r.first_false is not None and r.id in names}
    step_labels.finish(context, chosen, made, false)
    flat = [x for entry in made for x in entry.labels if x >= 0]
    return (
        {"rollouts": rollouts.count}
        | counts
        | {
            "unanswered": unanswered,
            "solutions": len(found),
            "different": len(chosen),
            "labels": len(flat),
            "positive": sum(flat) / len(flat),
        }
    )


def _representatives(found: Sequence[Solution]) -> dict[str, Solution]:
    """For each solution the first that is equal to it."""
    first: dict[tuple[str, tuple[int, ...]], Solution] = {}
    return {trace.id: first.setdefault((trace.problem_id, trace.tokens), trace) for trace in found}


def export(context: StageContext) -> dict[str, Any]:
    """Writes the labels of all solutions: with rollouts counted, as Math-Shepherd has them, and as TRL does."""
    rows, found = _read(context)
    first = _representatives(found)
    by_name = {e.trace_id: e.labels for e in files.read_table(context.input("labels") / "labels.parquet", StepLabels)}
    sizes = {trace.id: trace.num_steps for trace in found}
    with RolloutParts(context.input("labels")).shown(context, "counts") as rollouts:
        counted = {name: _counted(sizes[name], mine) for name, mine in rollouts.items()}  # duplicates lie in any part
    written: dict[str, list[dict[str, Any]]] = {"labels": [], "math_shepherd": [], "trl": []}
    for row, trace in zip(rows, found, strict=True):
        name = first[trace.id].id
        steps, made = trace.steps, by_name[name]
        own = {"id": row.id, "question": row.question, "answer": row.answer, "steps": steps, "labels": list(made)}
        written["labels"].append(own | counted.get(name, _counted(len(steps), ())))
        written["math_shepherd"].append(step_formats.math_shepherd(row.question, steps, made, row.subset or "glore"))
        written["trl"].append(step_formats.trl(row.question, steps, made))
    for kind, lines in written.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        files.write_text(context.folder / f"{kind}.jsonl", text)
    return {"solutions": len(rows)}


def _counted(steps: int, rollouts: Sequence[Rollout]) -> dict[str, list[int]]:
    """For each step: rollouts of the prefix that ends with it, and how many of them are right."""
    counts = {"rollouts": [0] * steps, "right": [0] * steps}
    for rollout in rollouts:
        counts["rollouts"][rollout.prefix - 1] += 1
        counts["right"][rollout.prefix - 1] += rollout.right
    return counts
