"""`glore score`: what a value model says about solutions that others wrote."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glore_jax import decisions, files, progress
from glore_jax.errors import InputError
from glore_jax.method import reward_models
from glore_jax.method.reward_models import Reading
from glore_jax.models import huggingface
from glore_jax.models.decoder import Decoder
from glore_jax.models.value_head import ValueModel
from glore_jax.records import Judged, Scored
from glore_jax.stages import artifacts
from glore_jax.tasks import traces
from glore_jax.text import formats, pretrained, tokenizers
from glore_jax.text.tokenizers import Tokenizer


def score(model: Path, source: Path, output: Path, threshold: float, tokenizer: Path | None = None) -> None:
    """Reads solutions, writes one `Scored` each, in the same order.

    Args:
      model: the folder of a value model, of a run or of Hugging Face's token classification.
      source: solutions in any format of `tasks/traces.py`.
      output: where to; its name ends in .jsonl or .parquet.
      threshold: a step of a lower value is an error.
      tokenizer: a folder or a file; None: the model's own.

    Raises:
      InputError: any of these is not what it should be; nothing is written then.
    """
    if output.suffix not in (".jsonl", ".parquet"):
        raise InputError(f"--output={output}: expected a name that ends in .jsonl or .parquet")
    if not 0 <= threshold <= 1:
        raise InputError(f"--threshold={threshold}: values are probabilities; expected a number from 0 to 1")
    solutions = traces.read(source)
    decoder, params = read_model(model)
    readings = read_with(read_tokenizer(model, tokenizer), solutions, decoder.config.vocab_size)
    check_lengths(solutions, readings, decoder.config.max_positions)
    with progress.track(len(readings), "solutions", "score") as bar:
        values = reward_models.values(decoder, params, readings, bar.advance)
    _check_numbers(solutions, values)
    rows = scored(solutions, values, threshold)
    if output.suffix == ".parquet":
        files.write_table(output, rows, Scored)
    else:
        lines = (json.dumps(dataclasses.asdict(row), ensure_ascii=False) + "\n" for row in rows)
        files.write_text(output, "".join(lines))
    wrong = sum(row.first_error >= 0 for row in rows)
    progress.say(f"{output}: {len(rows):,} solutions, {wrong:,} with a step under {threshold}")


def check_lengths(solutions: Sequence[Judged], readings: Sequence[Reading], longest: int) -> None:
    """InputError where a solution is longer than the model was made for: it would be read, and its values mean nothing.

    Args:
      longest: in tokens; 0 where nobody said.
    """
    sizes = {s.id: len(r.tokens) for s, r in zip(solutions, readings, strict=True) if len(r.tokens) > longest > 0}
    if sizes:
        name, size = next(iter(sizes.items()))
        raise InputError(
            f"{len(sizes)} solutions have more than the {longest} tokens that the model was made for, {name!r} "
            f"({size}) first; remove them, or take another model"
        )


def _check_numbers(solutions: Sequence[Judged], values: Sequence[tuple[float, ...]]) -> None:
    """InputError where a value is no number: such a step is under no threshold, so it would pass for a right one."""
    names = [judged.id for judged, found in zip(solutions, values, strict=True) if any(map(math.isnan, found))]
    if names:
        raise InputError(
            f"the model gives {len(names)} of {len(values)} solutions values that are no numbers, {names[0]!r} first: "
            "its weights are NaN, or too large for the type they are saved in; take another model"
        )


def read_model(folder: Path) -> tuple[Decoder, Any]:
    """A value model, `{"decoder": ..., "value_head": ...}`; one of a run computes in float32, others as they are saved.

    Raises:
      InputError: there is none, or it is no value model.
    """
    if not folder.is_dir():
        raise InputError(f"--model={folder}: no folder there; give that of a value model, such as runs/arithmetic/sorm")
    if (folder / "config.json").is_file():
        loaded, params = huggingface.load(folder)
        if not isinstance(loaded, ValueModel):
            raise InputError(f"--model={folder}: a language model; expected one for token classification, with values")
        return loaded.decoder, params
    decoder, params = artifacts.read_model(folder, "float32")
    if "value_head" not in params:
        raise InputError(f"--model={folder}: it has no value head; the value models of a run lie in orm and sorm")
    return decoder, params


def read_tokenizer(model: Path, given: Path | None) -> Tokenizer:
    """The tokenizer that was given, or the one in the model's folder, or in the folder `base` of its run.

    Raises:
      InputError: there is none.
    """
    if given is not None:
        return tokenizers.load(given) if given.is_file() else pretrained.of_model(given)
    base = model.resolve().parent / "base"
    if pretrained.holds(model):
        return pretrained.of_model(model)
    if pretrained.holds(base):
        return pretrained.reopen(base)
    raise InputError(f"{model}: no tokenizer there, nor in {base}; name its folder or file with --tokenizer=")


def scored(solutions: Sequence[Judged], values: Sequence[tuple[float, ...]], threshold: float) -> list[Scored]:
    """What the values say: a step of a lower value than the threshold is an error."""
    return [
        Scored(judged.id, found, decisions.first_below(found, threshold), found[-1])
        for judged, found in zip(solutions, values, strict=True)
    ]


def lines(judged: Judged) -> list[str]:
    """The steps, a line each: white space within a step, line ends too, becomes one blank."""
    return [" ".join(step.split()) for step in judged.steps]


def read_with(tokenizer: Tokenizer, solutions: Sequence[Judged], rows: int) -> list[Reading]:
    """Solutions as the model reads them, a step a line.

    Args:
      rows: of the model's embedding.

    Raises:
      InputError: a token has no row there, so the tokenizer is another model's.
    """
    readings = []
    for judged in solutions:
        readings.append(Reading.of(tokenizer, judged.question, *formats.encode_solution(tokenizer, lines(judged))))
        if (last := max(readings[-1].tokens)) >= rows:
            raise InputError(
                f"the tokenizer writes token {last}, and the model knows {rows}; give the model's own with --tokenizer="
            )
    return readings
