"""What MLflow's run of a search says."""

import json

import pytest
from searches import write_search

from imagetune.search.mlflow_note import format_search_note
from imagetune.search.results.reader import read_search
from imagetune.tracking.content import read_trial_metrics


@pytest.fixture
def searched(tmp_path):
    return write_search(tmp_path / "out", trials=9)


def note_of(folder):
    search = read_search(folder)
    return format_search_note(folder, search.candidates, trials=len(search.results), objective=search.objective)


def test_the_note_has_the_winner_its_spread_its_test_and_where_its_run_is(searched):
    (searched / "best" / "tracking.json").write_text(json.dumps({"run_id": "abc", "experiment_id": "7"}))
    note, best = note_of(searched), read_search(searched).candidates[0]
    assert f"trial {best.trial.trial_id}" in note
    assert f"{best.mean:.4f} ± " in note
    assert "over 3 seeds" in note
    assert "| `train.stages[0].learning_rate` |" in note
    assert "| f1 | **0.861** | 0.790 to 0.910 |" in note
    assert "(#/experiments/7/runs/abc)" in note
    assert "runner-up" in note


def test_while_the_search_goes_on_there_is_no_verdict(tmp_path):
    note = note_of(write_search(tmp_path / "out", trials=9, state="running", finalists=0))
    assert "one seed" in note
    assert "luck" not in note
    assert "its test" not in note


def test_the_series_has_every_metric_and_the_best_so_far(searched):
    results = read_search(searched).results
    found = read_trial_metrics(searched)
    assert [step for step, _, _ in found] == list(range(1, len(results) + 1))
    assert [metrics["trial_objective"] for _, metrics, _ in found] == [result.objective for result in results]
    best = [metrics["best_objective"] for _, metrics, _ in found]
    assert best == sorted(best)
    # Other seeds of finalists weren't chosen: they never are the best.
    assert best[-1] == max(result.objective for result in results if result.trial.phase == "search")


def test_a_failed_trial_leaves_a_gap_and_the_smallest_loss_is_best(tmp_path):
    failing = {2: "memory: out of memory"}
    folder = write_search(
        tmp_path / "out",
        trials=4,
        search="algorithm: random, objective: loss",
        failing=lambda number: failing.get(number, ""),
        finalists=0,
    )
    found = read_trial_metrics(folder)
    assert [step for step, _, _ in found] == [1, 3, 4]
    metrics = [metrics["trial_objective"] for _, metrics, _ in found]
    assert [metrics["best_objective"] for _, metrics, _ in found] == [min(metrics[: n + 1]) for n in range(3)]


def test_a_run_that_is_no_search_has_no_series(tmp_path):
    assert read_trial_metrics(tmp_path) == []
