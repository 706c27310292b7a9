"""Tokenizers of published models on the worked solutions of GSM8K: nothing lost, every step end on its line's end."""

from __future__ import annotations

import json
from pathlib import Path

import public_data
import pytest
import vocabularies

from glore_jax.method import reward_models
from glore_jax.records import Problem, Solution, StepLabels
from glore_jax.tasks import steps
from glore_jax.text import formats, pretrained
from glore_jax.text.tokenizers import Tokenizer

SAMPLE = 60  # of the default test session; the slow one takes all 8,792


def rows(count: int | None) -> list[dict[str, str]]:
    """Questions and worked answers: all, or some from all over the data set."""
    folder = public_data.folder("gsm8k")
    lines = [line for part in ("train", "test") for line in (folder / f"{part}.jsonl").read_text("utf-8").split("\n")]
    found = [json.loads(line) for line in lines if line]
    assert len(found) == 8792
    return found if count is None else found[:: len(found) // count]


def holds_for(t: Tokenizer, row: dict[str, str]) -> None:
    assert t.decode(t.encode(row["question"])) == row["question"]
    assert t.decode(t.encode(row["answer"])) == row["answer"]
    written = steps.split(row["answer"])
    tokens, ends = formats.encode_solution(t, written)
    assert formats.step_ends(t, tokens) == ends
    assert t.decode(tokens[: ends[-1]]) == "\n".join(written) + "\n"
    for line, start, end in zip(written, (0, *ends), ends, strict=False):
        assert t.decode(tokens[start:end]) == line + "\n", "a step ends where its line ends"
        assert not t.line_ends & set(tokens[start : end - 1]), "and nowhere else"
    cut_in_the_middle(t, row, written, tokens, ends)


def cut_in_the_middle(t: Tokenizer, row: dict[str, str], written: list[str], tokens: list[int], ends) -> None:
    """What is cut to fit a row loses whole steps, each with its label, and the loss is counted."""
    trace = Solution("p/0", "p", tuple(tokens), ends, "\n".join(written), right=True)
    problems = {"p": Problem("p", row["question"], "")}
    row_length = len(formats.encode_prompt(t, row["question"])) + len(tokens) // 2
    labels = [StepLabels("p/0", tuple(range(len(ends))))]
    (after,), (kept,), gone = reward_models.truncate(t, problems, [trace], labels, row_length)
    fitting = sum(end <= len(tokens) // 2 for end in ends) or len(ends)
    assert (after.steps, after.step_ends, kept.labels) == (written[:fitting], ends[:fitting], tuple(range(fitting)))
    assert gone == len(ends) - fitting


@pytest.mark.parametrize("style", pretrained.MARK_STYLES)
@pytest.mark.parametrize("name", vocabularies.PUBLISHED)
def test_some_solutions_come_back_with_their_steps(tmp_path: Path, name: str, style: str):
    t = pretrained.load(vocabularies.make(name, tmp_path), style)
    for row in rows(SAMPLE):
        holds_for(t, row)


@pytest.mark.slow
@pytest.mark.parametrize("name", vocabularies.PUBLISHED)
def test_all_solutions_come_back_with_their_steps(tmp_path: Path, name: str):
    t = pretrained.load(vocabularies.make(name, tmp_path))
    for row in rows(None):
        holds_for(t, row)


@pytest.mark.parametrize(
    ("name", "eos", "pad", "step_end", "opening", "size"),
    [
        ("mistral", 2, 2, 13, (1,), 32_000),  # no padding token: the end pads
        ("gpt2", 50_256, 50_256, 198, (), 50_257),
        ("olmo", 50_279, 1, 187, (), 50_280),
    ],
)
def test_special_tokens_of_published_vocabularies(tmp_path, name, eos, pad, step_end, opening, size):
    t = pretrained.load(vocabularies.make(name, tmp_path))
    assert (t.eos, t.pad, t.step_end, t.opening) == (eos, pad, step_end, opening)
    assert t.vocab_size == size + 13  # [BAD], [DRAFT], [REWRITE] and ten values; each has a line end of its own


def test_a_vocabulary_without_line_ends_gets_one(tmp_path: Path):
    """This one knows neither digits nor signs, so it loses text; its steps are found all the same."""
    source = public_data.folder("tokenizers") / "sentencepiece_test_1k.model"
    (tmp_path / "tokenizer.model").symlink_to(source)
    t = pretrained.load(tmp_path)
    assert t.step_end == 1000
    tokens, ends = formats.encode_solution(t, ["I am here", "and there"])
    assert formats.step_ends(t, tokens) == ends
    assert t.decode(tokens) == "I am here\nand there\n"
