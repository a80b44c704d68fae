import math

import numpy as np
import pytest
from searches import BATCH, RATE, drawn, write_search

from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.results.reader import read_search
from imagetune.search.results.verdict import compare_candidates, group_failures, list_remarks


def candidate(*metrics, name="001"):
    trial = Trial(name, {RATE: 1e-3})
    return Candidate(trial, tuple(TrialResult(trial, "completed", metric, 0.0, 1.0) for metric in metrics))


def titles(folder):
    return [remark.title for remark in list_remarks(read_search(folder))]


def test_a_clear_difference_over_seeds_is_significant_and_a_small_one_is_not():
    clear = compare_candidates(candidate(0.90, 0.91, 0.905), candidate(0.80, 0.81, 0.805), 1.0)
    assert clear.significant
    assert clear.better == pytest.approx(0.1)
    assert 0 < clear.low < 0.1 < clear.high
    small = compare_candidates(candidate(0.90, 0.86, 0.89), candidate(0.86, 0.88, 0.87), 1.0)
    assert not small.significant
    assert small.low < 0 < small.high
    assert 10 < small.seeds_needed < 60


def test_a_smaller_loss_is_the_better_one():
    difference = compare_candidates(candidate(0.20, 0.21), candidate(0.40, 0.42), -1.0)
    assert difference.better == pytest.approx(0.205)
    assert difference.low < difference.better < difference.high


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, held = np.random.default_rng(0), 0
    for _ in range(200):
        first, second = rng.normal(0.9, 0.02, 3), rng.normal(0.89, 0.01, 3)
        found = compare_candidates(candidate(*first), candidate(*second), 1.0)
        held += found.low <= 0.01 <= found.high
    assert 0.9 <= held / 200 <= 0.99


def test_one_seed_has_no_significance():
    assert compare_candidates(candidate(0.9), candidate(0.8, 0.81), 1.0) is None
    assert compare_candidates(candidate(0.9, 0.9), candidate(0.8, 0.8), 1.0).significant


def test_failures_that_differ_in_numbers_are_one():
    errors = ["diverged: nan at step 3", "memory: 3 GiB", "diverged: nan at step 1.5e3", ""]
    results = [
        TrialResult(Trial(f"{number:03d}", {}), "failed" if error else "completed", None, 0.0, 1.0, error=error)
        for number, error in enumerate(errors)
    ]
    first, second = group_failures(results)
    assert (first["count"], first["error"], first["trials"]) == (2, errors[0], ["000", "002"])
    assert second["error"] == errors[1]


def test_a_winner_with_one_seed_may_be_due_to_chance(tmp_path):
    assert titles(write_search(tmp_path / "out", trials=6, finalists=0)) == ["The winner may be due to chance"]


def test_a_winner_at_the_edge_with_its_like_asks_for_a_wider_range(tmp_path):
    def rising(values):
        return 0.5 + 0.1 * (4 + math.log10(values[RATE]))

    def edged(spaces, rng):
        values = drawn(spaces, rng)
        return {**values, RATE: 0.099} if rng.random() < 0.2 else values

    folder = write_search(tmp_path / "out", trials=24, metric=rising, finalists=0, noise=0.001, values_of=edged)
    (remark,) = [found for found in list_remarks(read_search(folder)) if "edge" in found.title]
    assert remark.tone == "warning"
    assert remark.title.startswith("learning_rate")
    assert "upper end" in remark.text
    assert "widen" in remark.text


@pytest.mark.parametrize(
    ("batches", "title"),
    [
        ([8] * 14 + [16, 24, 32, 40, 48, 56], "The search still improved at its end"),
        ([56, 48, 40, 32, 24, 16] + [8] * 14, "The search has levelled off"),
    ],
)
def test_more_trials_are_asked_for_where_the_last_ones_gained(tmp_path, batches, title):
    left = iter(batches)
    folder = write_search(
        tmp_path / "out",
        trials=20,
        metric=lambda values: 0.6 + values[BATCH] / 1000,
        values_of=lambda spaces, rng: {**drawn(spaces, rng), BATCH: next(left)},
        finalists=0,
        noise=0.0,
    )
    assert title in titles(folder)


def test_equal_metrics_have_no_winner_to_speak_of(tmp_path):
    folder = write_search(tmp_path / "out", trials=9, metric=lambda _: 0.8, noise=0.0, finalists=0)
    assert titles(folder) == ["All settings do equally well"]
