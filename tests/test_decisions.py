"""Which answer each way of inference gives."""

from __future__ import annotations

from glore_jax import decisions


def test_rerank_keeps_the_draft_within_the_margin(candidate):
    draft, better, best = (candidate(orm=(0.1, value)) for value in (0.5, 0.6, 0.75))
    assert decisions.rerank(draft, [better, best], margin=0.0) is best
    assert decisions.rerank(draft, [better], margin=0.125) is draft
    assert decisions.rerank(draft, [best], margin=0.25) is draft  # must exceed, not reach
    assert decisions.rerank(draft, [candidate(orm=(0.5,))], margin=0.0) is draft


def test_rerank_prefers_the_first_of_equals(candidate, case):
    draft, first, second = candidate(orm=(0.2,)), candidate(orm=(0.8,)), candidate(orm=(0.8,))
    assert decisions.system(case(draft, first, second), margin=0.0) is first


def test_gate_refines_only_below_it(candidate, case):
    rewrite = candidate(answer=2)
    low, high = candidate(orm=(0.9, 0.49)), candidate(orm=(0.1, 0.5))
    assert decisions.gated(case(low, rewrite), "global", gate=0.5) is rewrite
    assert decisions.gated(case(high, rewrite), "global", gate=0.5) is high


def test_an_empty_solution_has_value_zero(candidate):
    assert decisions.final_value(candidate(orm=(), text="")) == 0.0


def test_majority_counts_answers_as_numbers_and_breaks_ties_by_age(candidate):
    def with_text(text):
        return candidate(text=text)

    one, two, also_one = with_text("#### 1"), with_text("#### 2"), with_text("#### 1.0")
    assert decisions.majority([two, one, also_one]) is one
    assert decisions.majority([two, one]) is two
    silent = with_text("I do not know")
    assert decisions.majority([silent, silent, one]) is one
    assert decisions.majority([silent, with_text("####")]) is silent


def test_best_of_takes_the_earliest_of_the_highest(candidate):
    a, b, c = candidate(orm=(0.3,)), candidate(orm=(0.9,)), candidate(orm=(0.9,))
    assert decisions.best_of([a, b, c]) is b
