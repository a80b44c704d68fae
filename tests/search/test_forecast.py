from __future__ import annotations

import pytest

from imagetune.recipe.sections.search import BudgetConfig, ChoiceSpace, IntSpace, LogUniformSpace, SearchConfig
from imagetune.search.forecast import expected, seconds_left
from imagetune.search.proposers.oracle import OracleProposer
from imagetune.search.proposers.protocol import Turn
from imagetune.search.records.trial import Trial, TrialResult

RATE = ("train", "stages", 0, "learning_rate")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-5, high=1e-1),
    ("train", "batch_size"): IntSpace(search="int", low=8, high=24, step=8),
    ("data", "augmentation"): ChoiceSpace(search="choice", values=("none", "light")),
}


def ended(number, seconds=10.0, *, phase="search", status="completed", epochs=4):
    return TrialResult(Trial(f"{number:03d}", {}, phase=phase), status, 0.5, 0.0, seconds, epochs)


def test_trials_and_finalists_are_counted_beforehand():
    random = expected(SearchConfig(algorithm="random", trials=9, finalists=3, repeats=3), SPACES, epochs=8)
    assert (random.trials, random.finals) == (9, 6)
    grid = expected(SearchConfig(algorithm="grid", trials=99, finalists=0), SPACES, epochs=8)
    assert (grid.trials, grid.finals) == (5 * 3 * 2, 0)
    sweep = expected(SearchConfig(algorithm="sweep", repeats=2), SPACES, epochs=8)
    assert sweep.finals == 0
    assert sweep.trials > 2 * (1 + 2 + 1)


def test_there_are_never_more_finalists_than_trials():
    config = SearchConfig(algorithm="random", trials=9, finalists=3, repeats=3, budget=BudgetConfig(trials=2))
    assert (expected(config, SPACES, epochs=8).trials, expected(config, SPACES, epochs=8).finals) == (2, 4)


@pytest.mark.parametrize(("max_epochs", "factor"), [(9, 3), (8, 3), (16, 4), (5, 2), (1, 3)])
def test_hyperband_runs_as_many_trials_and_epochs_as_foreseen(tmp_path, max_epochs, factor):
    config = SearchConfig(algorithm="hyperband", max_epochs=max_epochs, factor=factor, finalists=0)
    foreseen = expected(config, SPACES, epochs=99)
    oracle = OracleProposer(config, SPACES, seed=0, epochs=99)
    epochs: dict[str, int] = {}
    trained = 0
    while not isinstance(trial := oracle.ask(), Turn):
        epochs[trial.trial_id] = trial.epochs or 0
        trained += epochs[trial.trial_id] - epochs.get(trial.continues or "", 0)
        oracle.tell(trial, trial.values[RATE])
    assert (foreseen.trials, foreseen.epochs) == (len(epochs), trained)


def test_nothing_is_foreseen_before_a_trial_has_ended():
    plan = expected(SearchConfig(algorithm="random", trials=4), SPACES, epochs=8)
    assert seconds_left(plan, [], {}, slots=1) is None
    assert seconds_left(plan, [ended(1, 0.0, status="failed")], {}, slots=1) is None


def test_a_trial_that_failed_at_its_start_does_not_predict_how_long_the_others_take():
    plan = expected(SearchConfig(algorithm="random", trials=4), SPACES, epochs=8)
    failed = TrialResult(Trial("001", {}), "failed", None, 0.0, 2.0, 0, error="no such block")
    assert seconds_left(plan, [failed], {}, slots=1) is None
    assert seconds_left(plan, [failed, ended(2, 30.0)], {}, slots=1) > 30.0


def test_what_is_left_follows_from_what_trials_took():
    plan = expected(SearchConfig(algorithm="random", trials=4, finalists=2, repeats=2), SPACES, epochs=8)
    running = {"002": (Trial("002", {}), 4.0)}
    # 6 s of the running one, two more, two of the finalists, the refit.
    assert seconds_left(plan, [ended(1)], running, slots=1) == pytest.approx(6 + 20 + 20 + 10)
    assert seconds_left(plan, [ended(1)], running, slots=2) == pytest.approx(3 + 10 + 10 + 10)


def test_finalists_take_as_long_as_trials_that_were_not_stopped_early():
    plan = expected(SearchConfig(algorithm="random", trials=2, finalists=1, repeats=2), SPACES, epochs=8)
    results = [ended(1, 20.0), ended(2, 4.0, status="stopped")]
    assert seconds_left(plan, results, {}, slots=1) == pytest.approx(20 + 20)


def test_no_new_trial_starts_after_the_hours_of_the_budget():
    plan = expected(SearchConfig(algorithm="random", trials=100, finalists=0), SPACES, epochs=8)
    assert seconds_left(plan, [ended(1)], {}, slots=1, budget_seconds=30.0) == pytest.approx(30 + 10 + 10)


def test_a_trial_of_hyperband_is_worth_its_epochs():
    plan = expected(SearchConfig(algorithm="hyperband", max_epochs=9, finalists=0), SPACES, epochs=9)
    short = [ended(number, 2.0, epochs=1) for number in range(1, 10)]
    assert seconds_left(plan, short, {}, slots=1) == pytest.approx((plan.epochs - 9) * 2.0 + 2.0)
