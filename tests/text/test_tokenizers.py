"""Digits split, marks whole, nothing lost."""

from __future__ import annotations

import string

import pytest
import sentencepiece
from handmade import EVEN_WEIGHTS, tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

from glore_jax.errors import InputError
from glore_jax.tasks.arithmetic import make_problem
from glore_jax.text import tokenizers

TOKENIZER = tokenizer()


@pytest.mark.parametrize("mark", tokenizers.MARKS)
def test_a_mark_is_one_token_wherever_it_stands(mark: str):
    for text in (f"nuts{mark}", f"nuts{mark}7", f"{mark}nuts", f"5 {mark} 7"):
        assert TOKENIZER.encode(text).count(TOKENIZER.mark(mark)) == 1


def test_marks_and_special_tokens_are_all_different():
    named = [TOKENIZER.pad, TOKENIZER.eos, TOKENIZER.step_end, TOKENIZER.bad, TOKENIZER.draft, TOKENIZER.rewrite]
    ids = [*named, *TOKENIZER.value_marks]
    assert len(set(ids)) == len(ids) == 2 + len(tokenizers.MARKS)
    assert TOKENIZER.pad == 0
    assert len(TOKENIZER.value_marks) == tokenizers.NUM_VALUE_MARKS
    assert list(TOKENIZER.new_marks) == sorted(ids[3:])


@given(st.integers(0, 10**12), st.sampled_from(["{}", "Ann has {} nuts.", "a: <<{}+2=5>>5", "#### {}", "${}.50"]))
def test_every_digit_is_a_token_of_its_own(number: int, frame: str):
    text = frame.format(number)
    pieces = [TOKENIZER.processor.id_to_piece(i) for i in TOKENIZER.encode(text)]
    with_digits = [p for p in pieces if any(c.isdigit() for c in p) and not p.startswith("<0x")]
    assert [p.removeprefix("\u2581") for p in with_digits] == [c for c in text if c.isdigit()]


def test_no_piece_of_the_vocabulary_hides_a_digit():
    pieces = {TOKENIZER.processor.id_to_piece(i) for i in range(TOKENIZER.vocab_size)}
    longer = {p for p in pieces if len(p) > 1 and any(c.isdigit() for c in p) and not p.startswith("<0x")}
    assert longer == {*tokenizers.VALUE_MARKS, *(f"\u2581{digit}" for digit in string.digits)}


def test_a_number_begins_right_after_the_word_before_it():
    """A space of its own would put it one token further from whom it belongs to."""
    pieces = [TOKENIZER.processor.id_to_piece(i) for i in TOKENIZER.encode("Ann has 17 nuts.")]
    at = pieces.index("\u25811")
    assert "".join(pieces[:at]) == "\u2581Ann\u2581has" and pieces[at + 1] == "7"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_problems_come_back_as_they_were(index: int):
    problem = make_problem(2, "test", index, EVEN_WEIGHTS)
    for text in (problem.question, problem.solution, *problem.solution.split("\n")):
        ids = TOKENIZER.encode(text)
        assert TOKENIZER.decode(ids) == text
        assert TOKENIZER.processor.unk_id() not in ids


def test_a_step_is_cut_into_names_digits_and_whole_signs():
    ids = TOKENIZER.encode("Ben = Ann + 3: <<17+3=20>> Ben 20")
    pieces = [TOKENIZER.processor.id_to_piece(i) for i in ids]
    at = pieces.index(":\u2581<<")  # from the relation to the numbers in one token
    assert pieces[at : at + 9] == [":\u2581<<", "1", "7", "+", "3", "=", "2", "0", ">>"]
    assert "".join(pieces[at + 9 : -2]) == "\u2581Ben"
    assert pieces[-2:] == ["\u25812", "0"]  # a space and the digit after it are one piece
    assert "<<" not in pieces


PRINTABLE = st.text(string.ascii_letters + string.digits + string.punctuation + " ", max_size=60)
FOREIGN = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\u2581"), max_size=20
)


@given(PRINTABLE | FOREIGN)
def test_any_line_comes_back_as_it_was(text: str):
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


@given(st.lists(PRINTABLE.map(str.strip), max_size=4))
def test_lines_stay_lines(lines: list[str]):
    text = "\n".join(lines)
    ids = TOKENIZER.encode(text)
    assert ids.count(TOKENIZER.step_end) == text.count("\n")
    assert TOKENIZER.decode(ids) == text


def test_padding_and_the_end_vanish():
    ids = TOKENIZER.encode("Ann has 12 nuts.")
    assert TOKENIZER.decode([*ids, TOKENIZER.eos, TOKENIZER.pad, TOKENIZER.pad]) == "Ann has 12 nuts."
    assert TOKENIZER.decode([]) == ""


def test_a_saved_tokenizer_is_the_same(tmp_path):
    TOKENIZER.save(tmp_path)
    again = tokenizers.load(tmp_path / "tokenizer.model")
    assert again.model == TOKENIZER.model
    assert again.encode("Ann has 12 nuts.") == TOKENIZER.encode("Ann has 12 nuts.")


def test_training_is_deterministic():
    texts = [make_problem(0, "corpus", i, EVEN_WEIGHTS).solution for i in range(50)]
    assert tokenizers.train(texts, 360).model == tokenizers.train(texts, 360).model


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.model: no tokenizer there"):
        tokenizers.load(tmp_path / "nowhere.model")


@pytest.mark.parametrize("content", [b"", b"no tokenizer at all", "half"])
def test_a_damaged_file_is_named(tmp_path, content):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(TOKENIZER.model[: len(TOKENIZER.model) // 2] if content == "half" else content)
    with pytest.raises(InputError, match=r"tokenizer\.model: .*SentencePiece"):
        tokenizers.load(path)


def test_a_tokenizer_without_the_marks_is_refused(tmp_path):
    path = tmp_path / "plain"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["one two three four"] * 20), model_prefix=str(path), vocab_size=20, minloglevel=2,
        hard_vocab_limit=False,
    )  # fmt: skip
    with pytest.raises(InputError, match=r"plain\.model: .*\[BAD\]"):
        tokenizers.load(path.with_suffix(".model"))
