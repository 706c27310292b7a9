"""Pairs of a draft and what it should become, and what a refiner reads."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import tokenizer

from glore_jax.method import refiners
from glore_jax.records import Problem, RefinementPair, Rollout, Solution, StepLabels
from glore_jax.text import formats

EOS = 2


def trace(name: str, tokens: tuple[int, ...], ends: tuple[int, ...], right: bool, finished: bool = True) -> Solution:
    problem = name.split("/")[0]
    return Solution(name, problem, tokens, ends, "\n".join("s" for _ in ends), right, finished)


def rolled(prefix: int, tokens: tuple[int, ...], ends: tuple[int, ...], right: bool, sample: int = 0) -> Rollout:
    return Rollout("p/0", prefix, sample, tokens, ends, "\n".join("s" for _ in ends), right)


# A draft of four steps, two tokens each: P_1 and P_2 are positive, P_3 is negative, so E = 3 (2 counted from 0).
DRAFT = trace("p/0", (10, 11, 20, 21, 30, 31, 40, 41, EOS), (2, 4, 6, 8), right=False)
LABELS = StepLabels("p/0", (1, 1, 0, 0))
RIGHT_FROM_2 = rolled(2, (35, 36, 45, EOS), (2, 3), True, 0)
WRONG_FROM_2 = rolled(2, (37, 38, EOS), (2,), False, 1)
WRONG_FROM_3 = rolled(3, (46, 47, 48, EOS), (1, 3), False, 0)
RIGHT_FROM_3 = rolled(3, (49, EOS), (1,), True, 1)
RIGHT_FROM_1 = rolled(1, (25, 35, 45, EOS), (1, 2, 3), True, 0)
TREE = [RIGHT_FROM_1, RIGHT_FROM_2, WRONG_FROM_2, WRONG_FROM_3, RIGHT_FROM_3]


def local(
    rollouts: list[Rollout],
    labels: StepLabels = LABELS,
    draft: Solution = DRAFT,
    others: list[Solution] | None = None,
    most: int = 9,
) -> list[RefinementPair]:
    samples = [draft, *(others or [])]
    return refiners.local_pairs([draft], [labels], {draft.id: rollouts}, samples, most)


def test_a_local_pair_is_a_wrong_rollout_from_the_negative_prefix_and_a_right_one_from_the_positive():
    (pair,) = local(TREE)
    assert pair.draft_tokens == (10, 11, 20, 21, 30, 31, 46, 47, 48, EOS)  # P_3, then the wrong rollout from P_3
    assert pair.draft_step_ends == (2, 4, 6, 7, 9)
    assert pair.target_tokens == (10, 11, 20, 21, 35, 36, 45, EOS)  # P_2, then the right rollout from P_2
    assert pair.error == 2  # E = i + 1 = 3, counted from 0
    assert pair.shared == 2
    assert pair.problem_id == "p"


def test_the_error_points_at_the_first_step_that_draft_and_target_do_not_share():
    (pair,) = local(TREE)
    cut = pair.draft_step_ends[pair.error - 1]
    assert pair.draft_tokens[:cut] == pair.target_tokens[:cut]
    assert pair.draft_tokens[cut] != pair.target_tokens[cut]


def test_without_a_wrong_rollout_the_trace_itself_is_the_draft():
    """The one rollout of a whole trace P_L is the trace: here its last step is the first wrong one."""
    last = StepLabels("p/0", (1, 1, 1, 0))
    (pair,) = local([*TREE, WRONG_FROM_3], last)
    assert pair.draft_tokens == DRAFT.tokens
    assert pair.draft_step_ends == DRAFT.step_ends
    assert pair.target_tokens == (10, 11, 20, 21, 30, 31, 49, EOS)
    assert (pair.error, pair.shared) == (3, 3)


def test_a_wrong_first_step_is_rewritten_into_the_students_right_traces():
    at_once = StepLabels("p/0", (0, 0, 0, 0))
    wrong_from_1 = rolled(1, (26, EOS), (1,), False, 5)
    right = trace("p/1", (50, 51, EOS), (2,), right=True)
    cut = trace("p/2", (60, 61), (2,), right=True, finished=False)
    wrong = trace("p/3", (70, EOS), (1,), right=False)
    elsewhere = trace("q/0", (80, EOS), (1,), right=True)
    (pair,) = local([*TREE, wrong_from_1], at_once, others=[right, cut, wrong, elsewhere])
    assert pair.draft_tokens == (10, 11, 26, EOS)  # P_1, then the wrong rollout from P_1
    assert pair.draft_step_ends == (2, 3)
    assert pair.target_tokens == (50, 51, EOS)
    assert (pair.error, pair.shared) == (0, 0)


@pytest.mark.parametrize(
    ("labels", "draft"),
    [
        (StepLabels("p/0", (1, 1, 1, 1)), DRAFT),  # no wrong step was found
        (StepLabels("p/0", (1, 1, 0, 0)), trace("p/0", DRAFT.tokens, DRAFT.step_ends, right=True)),
    ],
)
def test_no_pair_without_a_wrong_step_in_a_wrong_trace(labels: StepLabels, draft: Solution):
    assert local(TREE, labels, draft) == []


def test_no_pair_without_a_right_way_from_the_positive_prefix():
    assert local([RIGHT_FROM_1, WRONG_FROM_2, WRONG_FROM_3, RIGHT_FROM_3]) == []
    assert local(TREE, StepLabels("p/0", (0, 0, 0, 0))) == []  # no right trace of the question


def test_each_right_rollout_is_a_target_once_up_to_the_limit():
    more = [rolled(2, (60 + n, EOS), (1,), True, 10 + n) for n in range(5)]
    wrongs = [rolled(3, (90 + n, EOS), (1,), False, 10 + n) for n in range(2)]
    pairs = local([*more, *wrongs])
    assert sorted(p.target_tokens[-2] for p in pairs) == [60, 61, 62, 63, 64]
    assert {p.draft_tokens[-2] for p in pairs} == {90, 91}  # in turn
    assert local([*more, *wrongs], most=3) == pairs[:3]
    assert local([*more[::-1], *wrongs[::-1]]) == pairs  # whatever the order they came in


def test_global_pairs_join_wrong_and_right_traces_of_one_question():
    right_p, right_q = trace("p/1", (50, EOS), (1,), True), trace("q/1", (60, EOS), (1,), True)
    wrong_q = trace("q/0", (70, 71, EOS), (1, 2), False)
    alone = trace("r/0", (80, EOS), (1,), False)  # no right trace of its question
    pairs = refiners.global_pairs([DRAFT, right_p, right_q, wrong_q, alone], per_trace=2)
    assert pairs == [
        RefinementPair("p", DRAFT.tokens, DRAFT.step_ends, (50, EOS), error=-1, shared=0),
        RefinementPair("q", (70, 71, EOS), (1, 2), (60, EOS), error=-1, shared=0),
    ]


def test_global_targets_are_finished_and_drafts_have_steps():
    cut = trace("p/1", (50,), (1,), True, finished=False)
    empty = trace("p/2", (EOS,), (), False)
    unfinished_draft = trace("p/3", (90, 91), (1, 2), False, finished=False)
    assert refiners.global_pairs([DRAFT, cut], 2) == []
    right = trace("p/4", (55, EOS), (1,), True)
    pairs = refiners.global_pairs([empty, unfinished_draft, right], 2)
    assert [p.draft_tokens for p in pairs] == [(90, 91)]


def test_each_wrong_trace_gets_so_many_different_targets():
    rights = [trace(f"p/{n}", (50 + n, EOS), (1,), True) for n in range(1, 6)]
    wrongs = [DRAFT, trace("p/7", (90, EOS), (1,), False)]
    pairs = refiners.global_pairs([*wrongs, *rights], per_trace=3)
    assert [p.draft_tokens for p in pairs] == [DRAFT.tokens] * 3 + [(90, EOS)] * 3
    for draft in wrongs:
        assert len({p.target_tokens for p in pairs if p.draft_tokens == draft.tokens}) == 3
    assert refiners.global_pairs([*wrongs, *rights[::-1]], per_trace=3) == pairs


QUESTION = "How many nuts?"
PROBLEMS = {"p": Problem("p", QUESTION, "1")}


def test_examples_read_question_draft_and_critique_and_learn_the_target():
    t = tokenizer()
    (pair,) = local(TREE)
    (example,) = refiners.examples(t, PROBLEMS, [pair], prefix_lm=False)
    source = [
        *t.encode(QUESTION), t.step_end, t.draft, 10, 11, 20, 21, t.bad, 30, 31, 46, 47, 48, t.rewrite,
    ]  # fmt: skip
    assert example.tokens.tolist() == [*source, *pair.target_tokens][:-1]
    assert example.targets.tolist() == [*source, *pair.target_tokens][1:]
    assert example.weights.tolist() == [0.0] * (len(source) - 1) + [1.0] * len(pair.target_tokens)
    assert example.prefix == 0
    (both_ways,) = refiners.examples(t, PROBLEMS, [pair], prefix_lm=True)
    assert both_ways.prefix == len(source) - 1  # its last token is read as the target's are
    assert np.array_equal(both_ways.tokens, example.tokens)


def test_examples_with_values_carry_a_mark_a_step():
    t = tokenizer()
    pair = refiners.global_pairs([DRAFT, trace("p/1", (50, EOS), (1,), True)], 1)[0]
    (example,) = refiners.examples(t, PROBLEMS, [pair], False, [(0.95, 0.8, 0.25, 0.0)])
    v9, v8, v2, v0 = (t.value_marks[i] for i in (9, 8, 2, 0))
    marked = [t.draft, 10, 11, v9, 20, 21, v8, 30, 31, v2, 40, 41, v0, t.rewrite, 50]
    assert example.tokens.tolist() == [*formats.encode_prompt(t, QUESTION), *marked]


def test_what_is_read_at_inference_is_what_was_read_in_training():
    t = tokenizer()
    pair = RefinementPair("p", DRAFT.tokens, DRAFT.step_ends, (50, EOS), error=2, shared=2)
    values = [(0.95, 0.8, 0.25, 0.0)]
    for errors, given_values in (([2], None), (None, values), (None, None)):
        one = RefinementPair(**{**vars(pair), "error": -1 if errors is None else 2})
        (example,) = refiners.examples(t, PROBLEMS, [one], False, given_values)
        (source,) = refiners.sources(t, [PROBLEMS["p"]], [DRAFT], errors, given_values)
        assert example.tokens.tolist()[: len(source)] == source
        assert np.sum(example.weights[: len(source) - 1]) == 0
