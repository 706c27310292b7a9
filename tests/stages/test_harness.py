"""`glore harness`: models and runs under lm-evaluation-harness; needs the extra `lm-eval`, and no network."""

from __future__ import annotations

import functools
import json
import re
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checkpoints
import harness_tasks
import pytest
import tiny_run
import vocabularies
from handmade import tokenizer

from glore_jax import cli
from glore_jax.errors import InputError
from glore_jax.stages import walk

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    lm_eval = pytest.importorskip("lm_eval", reason="the extra `lm-eval` is not installed")
    from glore_jax.stages import harness

pytestmark = pytest.mark.filterwarnings("ignore")  # the harness's own, and those of what it imports
ROWS = [{"question": question, "answer": "2+3 = 5\n#### 5"} for question in tiny_run.QUESTIONS]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_run.make(tmp_path_factory.mktemp("run") / "run")


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and nothing left in the home folder."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(cli, "prepare_jax", lambda config: None)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # To read the names of the thousands of tasks that the harness ships takes seconds.
    monkeypatch.setattr(harness, "TaskManager", functools.partial(harness.TaskManager, include_defaults=False))
    monkeypatch.chdir(tmp_path)


def requests(*arguments: tuple[Any, ...]) -> list[Any]:
    return [SimpleNamespace(args=given) for given in arguments]


def written(lm: Any, contexts: list[str], **settings: Any) -> list[str]:
    return lm.generate_until(requests(*((context, settings) for context in contexts)))


def test_texts_end_where_the_task_says_and_depend_on_their_context_alone(workdir: Path):
    lm = harness.LanguageModel(workdir / "expert_iteration", batch_size=2)
    contexts = [f"{question}\n" for question in tiny_run.QUESTIONS]
    whole = written(lm, contexts, max_gen_toks=12)
    drafts = walk.drafts_of(walk.of_finished(workdir), tiny_run.QUESTIONS)
    assert whole == [tokenizer().decode(draft.solution.tokens) for draft in drafts]
    end = next(text[1] for text in whole if len(text) > 2)
    assert written(lm, contexts, max_gen_toks=12, until=[end]) == [text.split(end)[0] for text in whole]
    short = written(lm, contexts, max_gen_toks=3)
    assert short != whole and all(a.startswith(b.rstrip("\ufffd")) for a, b in zip(whole, short, strict=True))

    hot = written(lm, contexts, max_gen_toks=12, do_sample=True, temperature=1.0)
    assert hot != whole
    assert hot[1] != hot[3]  # two samples of one question
    assert written(lm, contexts[::-1], max_gen_toks=12, temperature=1.0)[::-1][:1] == hot[:1]


def test_likelihoods_of_windows_add_up(workdir: Path):
    """Cut where a window ends, a text's likelihood is that of its parts, each given one token before it."""
    lm = harness.LanguageModel(workdir / "expert_iteration", max_length=8)
    text = tiny_run.QUESTIONS[0]
    tokens = lm.tok_encode(text)
    assert len(tokens) > 16
    (total,) = lm.loglikelihood_rolling(requests((text,)))
    before, parts = [lm.prefix_token_id, *tokens], []
    for start in range(0, len(tokens) - len(tokens) % 8, 8):
        parts.append((None, before[start : start + 1], tokens[start : start + 8]))
    rest = len(tokens) % 8
    parts.append((None, before[-9 : -rest], tokens[-rest:]))  # the last window is a whole one  # fmt: skip
    assert total == pytest.approx(sum(logprob for logprob, _ in lm._loglikelihood_tokens(parts)), rel=1e-4)


def test_a_context_that_is_too_long_loses_its_beginning(tmp_path: Path):
    folder = vocabularies.make("byte_level", tmp_path)
    raw = checkpoints.config("llama3") | {"vocab_size": 503, "max_position_embeddings": 16}
    lm = harness.LanguageModel(checkpoints.write(folder, raw))
    text = "Ann has 3 nuts. Ben has 4. Eve has 5 more than Ben."
    assert lm.max_length == 16 and len(lm.tok_encode(text)) > 12
    kept = lm.text.decode(lm.tok_encode(text)[-12:])
    assert written(lm, [text, kept], max_gen_toks=4) == written(lm, [kept, kept], max_gen_toks=4)
    with pytest.raises(InputError, match=r"have 16 tokens \(max_gen_toks\), and the model reads 16; lower the task's"):
        written(lm, [text], max_gen_toks=16)


def documented() -> str:
    """Writes the task of docs/harness.md, and the rows that it names; returns its name."""
    page = Path(__file__).parents[2] / "docs" / "harness.md"
    (task,) = re.findall(r"^```yaml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    Path("my_tasks").mkdir()
    Path("my_tasks/plain_questions.yaml").write_text(task, encoding="utf-8")
    rows = [{"question": question, "answer": "7"} for question in tiny_run.QUESTIONS]
    Path("my_tasks/problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return "plain_questions"


@pytest.mark.parametrize("by", ["name", "file"])
def test_a_run_is_measured_by_the_documented_task(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by: str
):
    name = documented()
    answer = SimpleNamespace(solution=SimpleNamespace(tokens=tokenizer().encode("#### 8\n#### 7")))
    wrong = SimpleNamespace(solution=SimpleNamespace(tokens=tokenizer().encode("#### 7\n#### 8")))
    monkeypatch.setattr(walk, "answers_to", lambda context, questions: [answer, *[wrong] * (len(questions) - 1)])
    where = [f"--tasks={name}", "--include=my_tasks"] if by == "name" else [f"--tasks=my_tasks/{name}.yaml"]
    assert cli.main(["harness", f"--run={workdir}", *where, "--limit=4", "--output=results.json"]) == 0
    assert re.search(r"last_answer.*exact_match.*0\.25", capsys.readouterr().out)
    results = json.loads(Path("results.json").read_text())
    assert results["results"][name]["exact_match,last_answer"] == 0.25
    assert results["n-shot"][name] == 0


def test_a_run_answers_as_its_system_does(workdir: Path):
    questions = [f"{question}\n" for question in tiny_run.QUESTIONS]
    answers = walk.answers_to(walk.of_finished(workdir), tiny_run.QUESTIONS)
    found = written(harness.System(workdir), questions, until=["\n\n"], max_gen_toks=512)
    assert found == [tokenizer().decode(answer.solution.tokens).split("\n\n")[0] for answer in answers]
    short = written(harness.System(workdir), questions, max_gen_toks=2)
    assert short == [tokenizer().decode(answer.solution.tokens[:2]) for answer in answers]
    drafts = written(harness.System(workdir, draft=True), questions)
    assert drafts == written(harness.LanguageModel(workdir / "expert_iteration"), questions, max_gen_toks=12)
    assert drafts != found
    with pytest.raises(InputError, match="the refinement system decodes greedily; remove do_sample and temperature"):
        written(harness.System(workdir), questions, temperature=0.5)


def test_registered_models_are_made_from_their_folders(workdir: Path):
    arguments = f"model={workdir}/expert_iteration,max_length=32"
    lm = lm_eval.api.registry.get_model("glore").create_from_arg_string(arguments, {"batch_size": "4"})
    assert isinstance(lm, harness.LanguageModel)
    assert (lm.max_length, lm.rows) == (32, 4)
    assert lm_eval.api.registry.get_model("glore-system") is harness.System


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model=W/absent", "--tasks=local_read"], "absent: no folder there; give that of a language model"),
        (
            ["--model=W/orm", "--tasks=local_read"],
            "/orm: a value model; expected a language model, as expert_iteration",
        ),
        (
            ["--model=W/expert_iteration", "--tasks=local_read", "--batch=0"],
            "--batch=0, --max-length=0: expected numbers",
        ),
        (["--run=W/orm", "--tasks=local_written"], "/orm: not a work folder"),
        (["--run=W", "--tasks=local_chosen"], "a task asks for likelihoods, which the refinement system does not have"),
        (["--run=W", "--tasks=local_writen"], "--tasks=local_writen: no such task; see local_written"),
        (
            ["--run=W", "--tasks=local_written", "--fewshot=2"],
            "--fewshot, --max-length and --batch are of --model; a run is",
        ),
        (["--model=W/expert_iteration", "--tasks=local_written", "--draft"], "--draft is of a run; give --run=DIR"),
    ],
)
def test_bad_input_says_what_to_type(
    workdir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
):
    include = harness_tasks.write(tmp_path / "tasks", ROWS)
    assert cli.main(["harness", *(word.replace("=W", f"={workdir}") for word in words), f"--include={include}"]) == 2
    assert message in capsys.readouterr().err
