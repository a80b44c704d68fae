from __future__ import annotations

import csv
import math
import signal

import pytest

from imagetune.errors import CheckpointError, DivergedError, RecipeError, SearchError, StoppedError
from imagetune.recipe.search import ChoiceSpace, IntSpace, LogUniformSpace, SearchConfig
from imagetune.search.trials import run_search

RATE = ("train", "stages", 0, "learning_rate")
DEPTH = ("train", "stages", 1, "unfreeze")
BATCH = ("train", "batch_size")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-5, high=1e-1),
    DEPTH: ChoiceSpace(search="choice", values=("none", "last 2 blocks", None)),
    BATCH: IntSpace(search="int", low=8, high=64, step=8),
}
TRIALS = {"random": 12, "grid": 120, "bayesian": 5, "hyperband": 1}
ALGORITHMS = list(TRIALS)


def surface(values, *, trial_id, epochs):
    """Best at a rate of 1e-3 and a batch of 16; longer trials are a little better."""
    return 1 - abs(math.log10(values[RATE]) + 3) / 4 - abs(values[BATCH] - 16) / 480 + 0.001 * (epochs or 0)


def search(folder, run_trial=surface, *, algorithm="random", seed=0, resume=False, spaces=SPACES, **settings):
    settings = {"trials": TRIALS[algorithm], "max_epochs": 4} | settings
    config = SearchConfig(algorithm=algorithm, **settings)
    return run_search(spaces, config, seed=seed, folder=folder, run_trial=run_trial, resume=resume)


def table(folder):
    with (folder / "search.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def outcome(result):
    return [(each.trial, each.status, each.objective) for each in result.results]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_best_trial_is_found_and_every_trial_is_in_the_table(tmp_path, algorithm):
    result = search(tmp_path, algorithm=algorithm)
    assert result.best.objective == max(each.objective for each in result.results)
    assert result.best_values == result.best.trial.values
    assert 1e-4 < result.best_values[RATE] < 1e-2
    rows = table(tmp_path)
    assert [float(row["objective"]) for row in rows] == [each.objective for each in result.results]
    assert list(rows[0]) == [
        *("trial", "status", "objective", "seconds", "epochs"),
        *("train.stages[0].learning_rate", "train.stages[1].unfreeze", "train.batch_size", "error"),
    ]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_seed_0_repeats_the_search(tmp_path, algorithm):
    first = search(tmp_path / "a", algorithm=algorithm)
    assert outcome(search(tmp_path / "b", algorithm=algorithm)) == outcome(first)


def test_the_smallest_loss_is_the_best(tmp_path):
    result = search(tmp_path, lambda values, **_: values[RATE], objective="loss")
    assert result.best.objective == min(each.objective for each in result.results)


def test_bayesian_search_beats_its_own_random_start(tmp_path):
    result = search(tmp_path, algorithm="bayesian", trials=14)
    start = max(each.objective for each in result.results[:7])
    assert result.best.objective > max(start, 0.95)


@pytest.mark.parametrize("figure", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("objective", ["loss", "f1"])
def test_a_figure_that_is_not_finite_fails_the_trial_and_is_never_best(tmp_path, figure, objective):
    def run_trial(values, *, trial_id, epochs):
        return figure if trial_id in ("001", "005") else 0.5

    result = search(tmp_path, run_trial, objective=objective)
    assert [each.trial.trial_id for each in result.results if each.status == "failed"] == ["001", "005"]
    assert result.best.objective == 0.5
    assert result.results[0].error == f"the objective is {figure}"
    assert table(tmp_path)[0]["objective"] == ""


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_search_goes_on_after_more_failures_in_a_row_than_keras_tuner_takes(tmp_path, algorithm):
    def run_trial(values, *, trial_id, epochs):
        if int(trial_id) <= 4:
            raise DivergedError("the loss is NaN\nat step 3", where="stage head", hint="lower the rate")
        return surface(values, trial_id=trial_id, epochs=epochs)

    result = search(tmp_path, run_trial, algorithm=algorithm)
    assert [each.status for each in result.results[:4]] == ["failed"] * 4
    assert result.results[0].error == "diverged: stage head: the loss is NaN at step 3; lower the rate"
    assert table(tmp_path)[0]["error"] == result.results[0].error
    assert result.best.status == "completed"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_search_without_one_good_trial_says_the_first_cause(tmp_path, algorithm):
    def run_trial(values, *, trial_id, epochs):
        raise DivergedError(f"the loss of {trial_id} is NaN")

    message = r"search\.csv: all \d+ trials failed; the first \(trial 001\): diverged: the loss of 001 is NaN"
    with pytest.raises(SearchError, match=message) as error:
        search(tmp_path, run_trial, algorithm=algorithm)
    assert error.value.exit_code == 8
    assert {row["status"] for row in table(tmp_path)} == {"failed"}


def test_a_point_proposed_again_is_not_run_again(tmp_path):
    runs = []
    spaces = {BATCH: IntSpace(search="int", low=8, high=32, step=8)}

    def run_trial(values, *, trial_id, epochs):
        runs.append(values[BATCH])
        return -abs(values[BATCH] - 16)

    result = search(tmp_path, run_trial, algorithm="bayesian", spaces=spaces, trials=10)
    assert sorted(runs) == sorted(set(runs))
    repeated = [each for each in result.results if each.status == "repeated"]
    assert repeated
    assert all(each.objective == -abs(each.trial.values[BATCH] - 16) for each in repeated)


def test_hyperband_does_not_go_on_from_a_failed_trial(tmp_path):
    seen = []

    def run_trial(values, *, trial_id, epochs):
        seen.append((trial_id, epochs))
        if epochs < 4:
            raise DivergedError("NaN")
        return 0.5

    result = search(tmp_path, run_trial, algorithm="hyperband", max_epochs=4, factor=2)
    gone_on = [each for each in result.results if each.trial.continues]
    assert gone_on
    assert all("which it goes on from, failed" in each.error for each in gone_on)
    assert result.best.trial.epochs == 4


STOPS = [KeyboardInterrupt(), StoppedError(signal.SIGTERM), ZeroDivisionError()]


@pytest.mark.parametrize(
    ("algorithm", "stop"), [*((name, STOPS[0]) for name in ALGORITHMS), *(("random", stop) for stop in STOPS[1:])]
)
def test_a_stopped_search_goes_on_where_it_was(tmp_path, algorithm, stop):
    runs = []

    def run_trial(values, *, trial_id, epochs):
        if trial_id == "005" and "005" not in runs:
            runs.append(trial_id)
            raise stop
        runs.append(trial_id)
        return math.nan if trial_id == "003" else surface(values, trial_id=trial_id, epochs=epochs)

    with pytest.raises(type(stop)):
        search(tmp_path / "cut", run_trial, algorithm=algorithm)
    assert len(table(tmp_path / "cut")) == 4
    resumed = search(tmp_path / "cut", run_trial, algorithm=algorithm, resume=True)
    assert [each for each in runs if runs.count(each) > 1] == ["005", "005"]
    assert outcome(resumed) == outcome(search(tmp_path / "whole", run_trial, algorithm=algorithm))


def test_a_finished_search_can_be_given_more_trials(tmp_path):
    search(tmp_path, trials=4)
    assert len(search(tmp_path, trials=9, resume=True).results) == 9
    assert len(search(tmp_path, trials=2, resume=True).results) == 9


def test_a_line_cut_short_by_a_crash_is_run_again(tmp_path):
    whole = search(tmp_path, trials=5)
    path = tmp_path / "search.csv"
    path.write_bytes(path.read_bytes()[:-9])
    assert outcome(search(tmp_path, trials=5, resume=True)) == outcome(whole)
    assert len(table(tmp_path)) == 5


def test_a_search_is_not_overwritten(tmp_path):
    search(tmp_path)
    with pytest.raises(CheckpointError, match="a search is there already; go on with --resume"):
        search(tmp_path)


def test_a_changed_space_is_refused_and_named(tmp_path):
    search(tmp_path)
    changed = SPACES | {BATCH: IntSpace(search="int", low=8, high=128, step=8)}
    with pytest.raises(CheckpointError, match=r"the search changed since: train\.batch_size was .*'high': 64") as error:
        search(tmp_path, spaces=changed, resume=True)
    assert error.value.exit_code == 6
    with pytest.raises(CheckpointError, match="algorithm was random, now it is bayesian"):
        search(tmp_path, algorithm="bayesian", resume=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda text: text.replace("completed", "fine"), "trial 001 has the status 'fine'"),
     (lambda text: text.replace("epochs", "epoch"), "the columns are"),
     (lambda text: "", "can't be read")],
)  # fmt: skip
def test_a_damaged_table_is_refused_with_its_name(tmp_path, damage, message):
    search(tmp_path, trials=3)
    path = tmp_path / "search.csv"
    path.write_text(damage(path.read_text()))
    with pytest.raises(CheckpointError, match=message) as error:
        search(tmp_path, trials=3, resume=True)
    assert error.value.where == str(path)


def test_a_recipe_without_spaces_is_told_how_to_write_one(tmp_path):
    with pytest.raises(RecipeError, match="nothing to search; replace a value by a space, such as learning_rate"):
        search(tmp_path, spaces={})


def test_a_grid_larger_than_the_trials_is_refused_before_it_starts(tmp_path):
    with pytest.raises(RecipeError, match=r"search\.trials: the grid has 120 points, search\.trials allows 100"):
        search(tmp_path, algorithm="grid", trials=100)
    assert not list(tmp_path.iterdir())


def test_values_read_back_from_the_table_with_their_types(tmp_path):
    mixed = ("none", None, True, 1, 1.0, "1", "null", 'a, "b"\nc', "NaN", "[1]")
    spaces = {DEPTH: ChoiceSpace(search="choice", values=mixed)}
    first = search(tmp_path, lambda values, **_: 0.5, algorithm="grid", spaces=spaces)
    again = search(tmp_path, lambda values, **_: 1 / 0, algorithm="grid", spaces=spaces, resume=True)
    read = [each.trial.values[DEPTH] for each in again.results]
    assert [(type(value), value) for value in read] == [(type(value), value) for value in mixed]
    assert outcome(first) == outcome(again)
