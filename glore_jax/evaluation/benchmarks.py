"""`glore evaluate`: step values measured against what others judged."""

from __future__ import annotations

from pathlib import Path

from glore_jax import files
from glore_jax.errors import InputError
from glore_jax.evaluation import final_values, first_errors, predictions, tables
from glore_jax.tasks import traces

MODULES = {"processbench": first_errors, "where": first_errors, "when": final_values}


def evaluate(benchmark: str, source: Path, predicted: Path, output: Path | None = None) -> None:
    """Prints the figures of a benchmark; with `output` also writes them, and their definitions, as JSON.

    Args:
      benchmark: `processbench` and `where` measure the first error, `when` the final answer.
      source: the solutions, in a format of `tasks/traces.py`; for `processbench`, its own.
      predicted: their step values, as `glore score` writes them.

    Raises:
      InputError: a file is not what it should be, or the two do not belong together.
    """
    solutions = traces.read(source, "processbench" if benchmark == "processbench" else "")
    items = predictions.read(predicted, solutions)
    module = MODULES[benchmark]
    try:
        result = module.measure(items)
    except InputError as error:
        raise InputError(f"{source}: {error}") from error
    console = tables.wide_console()
    for part in module.tables(result):
        console.print(part)
    if output is not None:
        made_of = {"benchmark": benchmark, "input": str(source), "predictions": str(predicted)}
        files.write_json(output, made_of | result | {"definitions": module.DEFINITIONS})
        print(f"Written: {output}")
