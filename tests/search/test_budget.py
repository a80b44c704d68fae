from __future__ import annotations

import pytest

from imagetune.recipe.sections.search import BudgetConfig
from imagetune.search.budget import Budget, compute_busy_seconds
from imagetune.search.records.trial import Trial, TrialResult


def ran(began, seconds):
    return TrialResult(Trial("001", {}), "completed", 0.5, began, seconds)


def test_without_limits_trials_may_always_start():
    assert Budget(BudgetConfig()).may_start(10_000)
    assert Budget(BudgetConfig()).seconds_left() is None


def test_the_number_of_trials_is_a_limit():
    budget = Budget(BudgetConfig(trials=3))
    assert [budget.may_start(ended) for ended in (2, 3, 4)] == [True, False, False]


def test_hours_of_earlier_sessions_count():
    assert not Budget(BudgetConfig(hours=1), spent_seconds=3600.0).may_start(0)
    budget = Budget(BudgetConfig(hours=1), spent_seconds=3000.0)
    assert budget.may_start(0)
    assert budget.seconds_left() == pytest.approx(600, abs=5)


def test_trials_beside_each_other_count_once_and_pauses_not_at_all():
    assert compute_busy_seconds([]) == 0
    assert compute_busy_seconds([ran(100, 10), ran(105, 10), ran(106, 2), ran(500, 7)]) == 15 + 7
