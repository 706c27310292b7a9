"""By what candidates are compared, on values small enough to multiply by hand."""

from __future__ import annotations

import pytest
from candidates import build_candidate, build_case

from glore_jax import decisions, rankers
from glore_jax.errors import InputError


def test_every_ranker_by_hand():
    first = build_candidate(answer=1, orm=(0.1, 0.5), sorm=(0.5, 0.8))
    second = build_candidate(answer=2, orm=(0.9, 0.4), sorm=(0.9, 0.6))
    third = build_candidate(answer=2, orm=(0.9, 0.3), sorm=(0.2, 1.0))
    found = {name: ranker([first, second, third]) for name, ranker in rankers.RANKERS.items()}
    expected = {
        "orm": [0.5, 0.4, 0.3],
        "sorm": [0.8, 0.6, 1.0],
        "sorm_least": [0.5, 0.6, 0.2],
        "sorm_product": [0.4, 0.54, 0.2],
        "both": [0.4**0.5, 0.24**0.5, 0.3**0.5],
        "orm_votes": [0.5, 0.7, 0.7],
    }
    assert found == {name: pytest.approx(scores) for name, scores in expected.items()}
    assert list(rankers.SCORES) == list(rankers.RANKERS)


def test_an_empty_solution_is_worth_nothing():
    empty = build_candidate(orm=(), text="")
    assert [ranker([empty]) for ranker in rankers.RANKERS.values()] == [[0.0]] * len(rankers.RANKERS)


def test_those_without_an_answer_do_not_vote_together():
    silent = [build_candidate(orm=(value,), text="I do not know") for value in (0.3, 0.4)]
    assert rankers.by_votes([*silent, build_candidate(answer=1, orm=(0.2,))]) == [0.3, 0.4, 0.2]


def test_the_system_and_best_of_choose_by_their_ranker():
    draft = build_candidate(orm=(0.5,), sorm=(0.5,))
    by_orm, by_sorm = build_candidate(orm=(0.9,), sorm=(0.1,)), build_candidate(orm=(0.1,), sorm=(0.9,))
    case = build_case(draft, by_orm, by_sorm)
    assert decisions.system(case, 0.0) is decisions.system(case, 0.0, "orm") is by_orm
    assert decisions.system(case, 0.0, "sorm") is by_sorm
    assert decisions.system(case, 0.0, "both") is draft  # 0.5 against 0.3 twice
    assert decisions.best_of([by_orm, by_sorm], "sorm") is by_sorm


def test_an_unknown_ranker_is_refused():
    with pytest.raises(InputError, match=r"evaluation\.ranker='prm': expected one of orm, sorm, .*both"):
        rankers.check("prm")
