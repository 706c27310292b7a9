"""Tokenizers of other makes behave as the package's own: nothing lost, steps found, marks told apart."""

from __future__ import annotations

import json
import string
from pathlib import Path

import pytest
import vocabularies
from handmade import EVEN_WEIGHTS
from handmade import tokenizer as own
from hypothesis import given, settings
from hypothesis import strategies as st

from glore_jax.errors import InputError
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import formats, pretrained, tokenizers
from glore_jax.text.tokenizers import BAD, DRAFT, MARKS, REWRITE, STEP_END, Tokenizer

WITH_LINE_END = ("byte_level", "metaspace", "sentencepiece")
STYLED = [(name, style) for name in WITH_LINE_END for style in pretrained.MARK_STYLES] + [
    ("without_line_end", "tokens")
]
PRINTABLE = st.text(string.ascii_letters + string.digits + string.punctuation + " \n", max_size=60)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: vocabularies.make(name, tmp_path_factory.mktemp(name)) for name in vocabularies.SMALL}


@pytest.fixture(scope="module")
def loaded(folders: dict[str, Path]) -> dict[tuple[str, str], Tokenizer]:
    return {(name, style): pretrained.load(folders[name], style) for name, style in STYLED}


@pytest.mark.parametrize("which", STYLED)
def test_solutions_come_back_and_their_steps_end_where_they_were_written(loaded, which: tuple[str, str]):
    t = loaded[which]
    for index in range(20):
        problem = make_problem(2, "test", index, EVEN_WEIGHTS)
        assert t.decode(t.encode(problem.question)) == problem.question
        steps = problem.solution.split("\n")
        tokens, ends = formats.encode_solution(t, steps)
        assert tokens == [*t.encode(problem.solution), t.step_end, t.eos]
        assert formats.step_ends(t, tokens) == ends
        assert formats.steps_text(t, tokens, ends) == problem.solution
        assert max(tokens) < t.vocab_size


@pytest.mark.parametrize("name", WITH_LINE_END)
@settings(max_examples=60)
@given(text=PRINTABLE)
def test_any_text_comes_back(loaded, name: str, text: str):
    t = loaded[name, "tokens"]
    assert t.decode(t.encode(text)) == text


@pytest.mark.parametrize("which", STYLED)
@settings(max_examples=30)
@given(data=st.data())
def test_any_tokens_have_as_many_lines_as_step_ends(loaded, which: tuple[str, str], data: st.DataObject):
    t = loaded[which]
    telling = st.sampled_from([t.step_end, t.eos, *sorted(t.line_ends)])
    tokens = data.draw(st.lists(telling | st.integers(0, t.vocab_size - 1), max_size=30))
    ends = formats.step_ends(t, tokens)
    assert list(ends) == sorted(set(ends))
    assert all(tokens[end - 1] in t.line_ends for end in ends[:-1])
    assert formats.steps_text(t, tokens, ends).count("\n") == max(len(ends) - 1, 0)


def test_a_token_with_a_line_end_in_it_ends_a_step(loaded):
    """A byte-level model may write a full stop and the line end, or two line ends, as one token."""
    t = loaded["byte_level", "tokens"]
    stop, two = (t.vocabulary.encode(text) for text in (".\n", "\n\n"))
    assert len(stop) == len(two) == 1
    assert t.line_ends >= {*stop, *two, t.step_end}
    assert t.text_line_ends >= set(stop) and not t.text_line_ends & {*two, t.step_end}
    word = t.encode("Ann")
    assert formats.step_ends(t, [*word, *stop, *word, *two, *word]) == tuple(
        len(word) * i + min(i, 2) for i in (1, 2, 3)
    )
    assert formats.step_ends(t, [*two, *stop, t.step_end, t.eos]) == (2,)
    assert formats.steps_text(t, [*word, *stop, *word, t.eos], (len(word) + 1, 2 * len(word) + 1)) == "Ann.\nAnn"


@pytest.mark.parametrize("name", vocabularies.SMALL)
def test_added_marks_are_new_ids_that_no_text_has(loaded, name: str):
    t = loaded[name, "tokens"]
    marks = [m for m in MARKS if m != STEP_END or name == "without_line_end"]
    assert [t.marks[m] for m in marks] == [(t.vocabulary.size + i,) for i in range(len(marks))]
    assert t.vocab_size == t.vocabulary.size + len(marks)
    assert t.new_marks == tuple(range(t.vocabulary.size, t.vocab_size))
    assert max(t.encode(f"{BAD} </s> <s> {DRAFT}")) < t.vocabulary.size
    assert t.eos not in t.encode("</s>")
    assert t.decode([*t.marks[BAD], *t.encode("Ann"), *t.marks[REWRITE]]) == f"{BAD}Ann{REWRITE}"


@pytest.mark.parametrize("name", WITH_LINE_END)
def test_spelled_marks_need_no_new_ids(loaded, name: str):
    t = loaded[name, "text"]
    assert t.vocab_size == t.vocabulary.size
    assert t.new_marks == ()
    draft, ends = formats.encode_solution(t, ["a 1", "b 2"])
    source = formats.encode_refiner_source(t, "Q?", draft, ends, error=1, values=[0.0, 1.0])
    written = t.decode(source[len(t.opening) :])
    assert written == "Q?\n[DRAFT]\na 1\n[V0]\n[BAD]\nb 2\n[V9]\n[REWRITE]\n"


def test_what_a_model_expects_in_front_is_there(loaded):
    assert [loaded[name, "tokens"].opening for name in WITH_LINE_END] == [(), (1,), (1,)]
    t = loaded["metaspace", "tokens"]
    assert formats.encode_prompt(t, "Ann has 3.") == [1, *t.encode("Ann has 3."), t.step_end]


def test_without_a_padding_token_the_end_pads(loaded):
    for t in loaded.values():
        assert t.pad == t.eos
        assert t.decode([*t.encode("Ann"), t.eos, t.pad]) == "Ann"


@pytest.mark.parametrize("name", ["byte_level", "metaspace"])
def test_a_chat_template_stands_around_the_question(folders, name: str):
    t = pretrained.load(folders[name], with_chat=True)
    user, bos = (t.vocabulary.id_of(token) for token in ("<|user|>", "<s>"))
    prompt = formats.encode_prompt(t, "Is <|user|> Ann?")
    assert prompt[:2] == [bos, user]
    assert prompt.count(user) == 2, "a special token spelled in a question is text"
    # A vocabulary that writes a blank in front of a text does so after each special token too.
    assert t.decode(prompt).replace("<|user|> \n", "<|user|>\n") == "<s><|user|>Is <|user|> Ann?\n\n<|user|>\n"


def test_special_tokens_are_found_by_name_or_by_number(folders, tmp_path: Path):
    for name in ("tokenizer.json",):
        (tmp_path / name).symlink_to(folders["byte_level"] / name)
    with pytest.raises(InputError, match=r"not said which token ends a text; looked for eos_token in tokenizer_config"):
        pretrained.load(tmp_path)
    config = tmp_path / "config.json"
    config.write_text('{"eos_token_id": [7, 8], "pad_token_id": 3}')
    t = pretrained.load(tmp_path)
    assert (t.eos, t.pad) == (7, 3)
    config.write_text('{"eos_token_id": 99999}')
    with pytest.raises(InputError, match=r"config\.json: eos_token_id=99999 is no id of the vocabulary"):
        pretrained.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    with pytest.raises(InputError, match=r"tokenizer_config\.json: the eos_token '<end>' is not in the vocabulary"):
        pretrained.load(tmp_path)


def test_a_folder_without_a_tokenizer_says_what_was_looked_for(tmp_path: Path):
    with pytest.raises(InputError, match=r"no tokenizer there; looked for tokenizer\.json, tokenizer\.model"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"{no tokenizer")
    with pytest.raises(InputError, match=rf"{name}: not a .*take the model's own file"):
        pretrained.load(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_settings_are_named(folders, tmp_path: Path, text: str):
    (tmp_path / "tokenizer.json").symlink_to(folders["byte_level"] / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(text)
    with pytest.raises(InputError, match=r"tokenizer_config\.json: (not JSON|expected a JSON object)"):
        pretrained.load(tmp_path)


def test_unknown_styles_and_missing_parts_are_refused(folders):
    with pytest.raises(InputError, match="marks='words': expected one of tokens, text"):
        pretrained.load(folders["byte_level"], "words")
    with pytest.raises(InputError, match="has no line end, which ends a step; take marks='tokens'"):
        pretrained.load(folders["without_line_end"], "text")
    with pytest.raises(InputError, match=r"no chat template; looked for chat_template\.jinja"):
        pretrained.load(folders["sentencepiece"], with_chat=True)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system') }}", r"fails on one question of a user \(no system\)"),
        ("{{ messages[0]['content'] }}{{ messages[0]['content'] }}", "writes the user's words 2 times"),
        ("hello", "writes the user's words 0 times"),
        ("{% for", "the chat template fails"),
        ("{{ messages.__class__.__mro__[1].__subclasses__() }}", "fails on one question of a user"),
        ("{{ messages[5].content }}", "fails on one question of a user"),
    ],
)
def test_a_bad_chat_template_is_refused(folders, tmp_path: Path, template: str, message: str):
    (tmp_path / "tokenizer.json").symlink_to(folders["byte_level"] / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    with pytest.raises(InputError, match=message):
        pretrained.load(tmp_path, with_chat=True)


def test_the_packages_own_tokenizer_is_found_in_its_folder(tmp_path: Path):
    own().save(tmp_path)
    found = pretrained.load(tmp_path)
    assert isinstance(found, tokenizers.OwnTokenizer)
    assert found.encode("Ann has 12 nuts.") == own().encode("Ann has 12 nuts.")
    with pytest.raises(InputError, match="own tokenizer has its marks as tokens"):
        pretrained.load(tmp_path, "text")
