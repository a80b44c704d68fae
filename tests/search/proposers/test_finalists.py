from __future__ import annotations

from imagetune.search.proposers.finalists import list_repeats, rank_candidates
from imagetune.search.records.trial import Trial, TrialResult

RATE = ("train", "learning_rate")


def ended(number, rate, objective, **settings):
    status = settings.pop("status", "failed" if objective is None else "completed")
    return TrialResult(Trial(f"{number:03d}", {RATE: rate}, **settings), status, objective, began=0.0, seconds=1.0)


def test_the_best_metric_comes_first_in_either_direction():
    results = [ended(1, 0.1, 0.4), ended(2, 0.2, 0.6), ended(3, 0.3, 0.5)]
    assert [each.trial.trial_id for each in rank_candidates(results, "max")] == ["002", "003", "001"]
    assert [each.trial.trial_id for each in rank_candidates(results, "min")] == ["001", "003", "002"]


def test_of_equals_the_earlier_one_comes_first():
    assert rank_candidates([ended(1, 0.1, 0.5), ended(2, 0.2, 0.5)], "max")[0].trial.trial_id == "001"


def test_failed_and_repeated_trials_are_nobody():
    results = [ended(1, 0.1, None), ended(2, 0.2, 0.5), ended(3, 0.2, 0.5, status="repeated")]
    (only,) = rank_candidates(results, "max")
    assert only.objectives == (0.5,)


def test_a_mean_over_seeds_beats_one_lucky_trial():
    lucky = ended(1, 0.1, 0.9)
    steady = [ended(2, 0.2, 0.8), ended(3, 0.2, 0.82, phase="final", seed=8)]
    first, second = rank_candidates([lucky, *steady], "max")
    assert first.trial.trial_id == "002"
    assert first.mean == 0.81
    assert second.trial.trial_id == "001"


def test_only_the_longest_training_of_hyperband_counts():
    (only,) = rank_candidates([ended(1, 0.1, 0.9, epochs=2), ended(2, 0.1, 0.7, epochs=6, continues="001")], "max")
    assert only.trial.trial_id == "002"
    assert only.objectives == (0.7,)


def test_each_finalist_is_trained_again_with_the_seeds_that_follow():
    finalists = rank_candidates([ended(1, 0.1, 0.4), ended(2, 0.2, 0.6)], "max")
    trials = list_repeats(finalists, repeats=3, seed=7)
    assert [(each.trial_id, each.repeats, each.seed) for each in trials] == [
        *(("002-2", "002", 8), ("001-2", "001", 8)),
        *(("002-3", "002", 9), ("001-3", "001", 9)),
    ]
    assert {each.phase for each in trials} == {"final"}


def test_a_finalist_of_hyperband_keeps_its_epochs_and_starts_anew():
    finalists = rank_candidates([ended(1, 0.1, 0.7, epochs=6, continues="000")], "max")
    (again,) = list_repeats(finalists, repeats=2, seed=0)
    assert (again.epochs, again.continues) == (6, None)
