"""Which answer each way of inference gives."""

from __future__ import annotations

from candidates import build_candidate, build_case

from glore_jax import decisions, rankers


def test_rerank_keeps_the_draft_within_the_margin():
    draft, better, best = (build_candidate(orm=(0.1, value)) for value in (0.5, 0.6, 0.75))
    assert decisions.rerank(draft, [better, best], margin=0.0) is best
    assert decisions.rerank(draft, [better], margin=0.125) is draft
    assert decisions.rerank(draft, [best], margin=0.25) is draft  # must exceed, not reach
    assert decisions.rerank(draft, [build_candidate(orm=(0.5,))], margin=0.0) is draft


def test_rerank_prefers_the_first_of_equals():
    draft, first, second = build_candidate(orm=(0.2,)), build_candidate(orm=(0.8,)), build_candidate(orm=(0.8,))
    assert decisions.system(build_case(draft, first, second), margin=0.0) is first


def test_gate_refines_only_below_it():
    rewrite = build_candidate(answer=2)
    low, high = build_candidate(orm=(0.9, 0.49)), build_candidate(orm=(0.1, 0.5))
    assert decisions.gated(build_case(low, rewrite), "global", gate=0.5) is rewrite
    assert decisions.gated(build_case(high, rewrite), "global", gate=0.5) is high


def test_an_empty_solution_has_value_zero():
    assert rankers.final_value(build_candidate(orm=(), text="")) == 0.0


def test_majority_counts_answers_as_numbers_and_breaks_ties_by_age():
    def with_text(text):
        return build_candidate(text=text)

    one, two, also_one = with_text("#### 1"), with_text("#### 2"), with_text("#### 1.0")
    assert decisions.majority([two, one, also_one]) is one
    assert decisions.majority([two, one]) is two
    silent = with_text("I do not know")
    assert decisions.majority([silent, silent, one]) is one
    assert decisions.majority([silent, with_text("####")]) is silent


def test_best_of_takes_the_earliest_of_the_highest():
    a, b, c = build_candidate(orm=(0.3,)), build_candidate(orm=(0.9,)), build_candidate(orm=(0.9,))
    assert decisions.best_of([a, b, c]) is b
