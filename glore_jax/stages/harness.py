"""`glore harness`: models and whole systems under the tasks of lm-evaluation-harness.

Importing this registers two models with it: `glore`, a language model, and `glore-system`, a finished run with the
refinement system around its student.
"""

from __future__ import annotations

import difflib
import fnmatch
import json
import types
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import lm_eval  # pyright: ignore[reportMissingImports]
from lm_eval import utils  # pyright: ignore[reportMissingImports]
from lm_eval.api.model import LM, TemplateLM  # pyright: ignore[reportMissingImports]
from lm_eval.api.registry import register_model  # pyright: ignore[reportMissingImports]
from lm_eval.tasks import TaskManager  # pyright: ignore[reportMissingImports]

from glore_jax import files, progress
from glore_jax.errors import InputError
from glore_jax.evaluation.continuations import Continuation, Writing, loglikelihoods
from glore_jax.models import huggingface
from glore_jax.models.decoder import CausalLM, Decoder
from glore_jax.parallel import placement
from glore_jax.parallel.rows import width
from glore_jax.sampling.engine import Engine
from glore_jax.sampling.requests import Request, Source
from glore_jax.stages import artifacts, walk
from glore_jax.text import pretrained
from glore_jax.text.plain import Plain

_LENGTH = 2048  # that a model reads at most, where nobody said; the harness's own model takes the same
_CHUNK = 16  # decoding steps between two looks at who is done


@register_model("glore")
class LanguageModel(TemplateLM):
    """A language model, as it is.

    Args:
      model: a Hugging Face folder, or that of a stage of a run with a language model.
      max_length: tokens that it reads at most; 0: as many as its configuration says, or else 2,048.
      batch_size: rows that are computed together on each device.
      seed: of sampling, where a task asks for a temperature.

    Raises:
      InputError: no language model there, or no tokenizer.
    """

    def __init__(self, model: str | Path, max_length: int = 0, batch_size: int | str = 16, seed: int = 0):
        super().__init__()
        self.rows, self.seed = int(batch_size), seed
        if self.rows < 1 or max_length < 0:
            raise InputError(f"--batch={batch_size}, --max-length={max_length}: expected numbers of rows and of tokens")
        self.decoder, self.params, self.text = read_model(Path(model))
        self.max_length = max_length or self.decoder.config.max_positions or _LENGTH

    @property
    def eot_token_id(self) -> int:
        return self.text.eos

    @property
    def prefix_token_id(self) -> int:
        return self.text.first

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        return self.text.encode(string, opened=add_special_tokens is not False)

    def _loglikelihood_tokens(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        asked = [Continuation.of(context, written, self.max_length) for _, context, written in requests]
        with progress.track(len(asked), "continuations", "harness: likelihoods") as bar:
            return loglikelihoods(self.decoder, self.params, asked, self.rows, bar.advance)

    def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
        """Log-likelihoods of whole texts: of one that is too long, the sum over windows that share one token."""
        windows = []
        for n, request in enumerate(requests):
            tokens = self.tok_encode(request.args[0])
            rolled = utils.get_rolling_token_windows(tokens, self.prefix_token_id, self.max_length, context_len=1)
            windows += [(n, *utils.make_disjoint_window(window)) for window in rolled]
        totals = [0.0] * len(requests)
        for window, found in zip(windows, self._loglikelihood_tokens(windows), strict=True):
            totals[window[0]] += found[0]
        return totals

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        writings = [Writing.of(request.args[1]) for request in requests]
        sources = [self._source(r.args[0], w.limit) for r, w in zip(requests, writings, strict=True)]
        names = _names([request.args[0] for request in requests])
        asked = [
            Request(name, Source(source), len(source), w.temperature, w.limit, w.top_k, w.top_p, w.until)
            for name, source, w in zip(names, sources, writings, strict=True)
        ]
        slots = self.rows * placement.make().parts("batch")
        settings = types.SimpleNamespace(
            dtype=self.decoder.config.dtype,
            weights="same",
            cache="same",
            slots=slots,
            sources=slots,
            chunk=_CHUNK,
            buckets=sorted({width(len(source)) for source in sources}),
            max_new_tokens=max(writing.limit for writing in writings),
        )
        engine = Engine(self.decoder, self.params, settings, self.text.eos, self.text.eos, text=self.text.decode)
        with progress.track(len(asked), "texts", "harness: texts") as bar:
            meter = artifacts.Meter(bar)
            written = engine.generate(asked, jax.random.key(self.seed), meter)
        return [w.cut(self.text.decode(c.tokens)) for w, c in zip(writings, written, strict=True)]

    def _source(self, context: str, limit: int) -> list[int]:
        """The context's tokens; of one that leaves no room to write `limit` more the last."""
        room = self.max_length - limit
        if room < 1:
            raise InputError(
                f"the task lets a text have {limit} tokens (max_gen_toks), and the model reads {self.max_length}; "
                "lower the task's max_gen_toks, or give a larger --max-length"
            )
        return self.tok_encode(context)[-room:]


@register_model("glore-system")
class System(LM):
    """A finished run that answers: the student drafts, the SORM locates, both refiners rewrite, the ORM chooses.

    What a task hands in is the question alone, as the run's own problems have it. The answer is as long as the run's
    `sampling.max_new_tokens` lets it be, or the task's `max_gen_toks` where that is less.

    Args:
      run: the work folder.
      draft: whether the student's draft is the answer, with nothing around it.

    Raises:
      InputError: it is no work folder.
    """

    def __init__(self, run: str | Path, draft: bool = False):
        super().__init__()
        self.workdir, self.answers = Path(run), walk.drafts_of if draft else walk.answers_to
        self.context = walk.of_finished(self.workdir)

    def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
        writings = [Writing.of(request.args[1]) for request in requests]
        if any(writing.temperature for writing in writings):
            raise InputError(
                "generation_kwargs: the refinement system decodes greedily; remove do_sample and temperature from the "
                "task, or evaluate the student with --model=WORKDIR/expert_iteration"
            )
        text = pretrained.load_plain(self.context.input("base"))
        found = self.answers(self.context, [request.args[0].strip() for request in requests])
        return [
            writing.cut(text.decode(answer.solution.tokens[: writing.limit]))
            for writing, answer in zip(writings, found, strict=True)
        ]

    def loglikelihood(self, requests: Sequence[Any], **_: Any) -> list[tuple[float, bool]]:
        raise InputError(
            f"--run={self.workdir}: a task asks for likelihoods, which the refinement system does not have; "
            f"give the student, --model={self.workdir / 'expert_iteration'}"
        )

    loglikelihood_rolling = loglikelihood


def read_model(folder: Path) -> tuple[Decoder, Any, Plain]:
    """A language model, its parameters, and how it reads text.

    Raises:
      InputError: there is none, or one with values, or no tokenizer in the folder or in `base` beside it.
    """
    if not folder.is_dir():
        raise InputError(
            f"--model={folder}: no folder there; give that of a language model, Hugging Face's or a stage's"
        )
    text = pretrained.load_plain(artifacts.tokenizer_folder(folder))
    if (folder / "config.json").is_file():
        loaded, params = huggingface.load(folder)
        is_language = isinstance(loaded, CausalLM)
        decoder = loaded.decoder
    else:
        decoder, whole = artifacts.read_model(folder, "float32")
        is_language, params = "value_head" not in whole, whole["decoder"]
    if not is_language:
        raise InputError(
            f"--model={folder}: a value model; expected a language model, as expert_iteration has in a run"
        )
    return decoder, params, text


def _names(contexts: Sequence[str]) -> list[str]:
    """What names the randomness of each text: its context, and the how manieth it is of that context."""
    seen: Counter[str] = Counter()
    names = []
    for context in contexts:
        names.append(f"{context}/{seen[context]}")
        seen[context] += 1
    return names


def evaluate(
    lm: LM,
    tasks: Sequence[str],
    include: Path | None = None,
    fewshot: int | None = None,
    limit: int | None = None,
    output: Path | None = None,
) -> None:
    """Runs tasks of the harness and prints its table.

    Args:
      tasks: names (or patterns such as mmlu_*) of the harness or in `include`, or YAML files.
      include: a folder with tasks of one's own.
      fewshot: how many examples stand before each question; None: as each task has it.
      limit: how many rows of each task; None: all.
      output: a JSON file to write the results to.

    Raises:
      InputError: there is no such task, or the model cannot do what it asks for.
    """
    manager = TaskManager(include_path=None if include is None else str(include))
    for name in tasks:
        if not fnmatch.filter(manager.all_tasks, name) and not Path(name).is_file():
            close = difflib.get_close_matches(name, manager.all_tasks) or ["`lm-eval ls tasks`"]
            raise InputError(
                f"--tasks={name}: no such task; see {', '.join(close)}, or give the folder of your own with --include="
            )
    found = lm_eval.simple_evaluate(
        model=lm, tasks=list(tasks), num_fewshot=fewshot, limit=limit, task_manager=manager, log_samples=False
    )
    if output is not None:
        files.write_text(output, json.dumps(found, indent=2, default=utils.handle_non_serializable) + "\n")
    progress.say(utils.make_table(found))
