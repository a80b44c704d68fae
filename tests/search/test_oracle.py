from __future__ import annotations

import math

import pytest

from imagetune.recipe.search import ChoiceSpace, IntSpace, LogUniformSpace, SearchConfig
from imagetune.search.oracle import ask, build_oracle, direction_of, tell

RATE = ("train", "stages", 0, "learning_rate")
BATCH = ("train", "batch_size")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-5, high=1e-1),
    BATCH: IntSpace(search="int", low=8, high=32, step=8),
}


def propose(folder, count, **settings):
    seed = settings.pop("seed", 0)
    oracle = build_oracle(SearchConfig(**settings), SPACES, seed=seed, folder=folder)
    proposals = []
    while len(proposals) < count and (proposal := ask(oracle)):
        tell(oracle, proposal, -abs(math.log10(proposal.values[RATE]) + 3))
        proposals.append(proposal)
    return proposals


def test_only_the_loss_is_better_when_smaller():
    objectives = ("loss", "accuracy", "precision", "recall", "f1")
    assert [direction_of(name) for name in objectives] == ["min", "max", "max", "max", "max"]


@pytest.mark.parametrize("algorithm", ["random", "grid", "bayesian", "hyperband"])
@pytest.mark.parametrize("seed", [0, 5])
def test_the_same_seed_proposes_the_same_trials(tmp_path, algorithm, seed):
    first = propose(tmp_path / "a", 6, algorithm=algorithm, seed=seed, trials=20)
    second = propose(tmp_path / "b", 6, algorithm=algorithm, seed=seed, trials=20)
    assert [trial.values for trial in first] == [trial.values for trial in second]


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_neighbouring_seeds_share_no_proposal(tmp_path, algorithm):
    first = propose(tmp_path / "a", 6, algorithm=algorithm, seed=0, trials=20)
    second = propose(tmp_path / "b", 6, algorithm=algorithm, seed=1, trials=20)
    assert not {trial.values[RATE] for trial in first} & {trial.values[RATE] for trial in second}


def test_random_search_stops_after_its_trials(tmp_path):
    assert len(propose(tmp_path, 100, algorithm="random", trials=7)) == 7


def test_a_grid_visits_every_point_once(tmp_path):
    points = [tuple(trial.values.values()) for trial in propose(tmp_path, 100, algorithm="grid", trials=20)]
    assert len(points) == len(set(points)) == 5 * 4


def test_hyperband_gives_more_epochs_to_the_better_trials(tmp_path):
    trials = propose(tmp_path, 100, algorithm="hyperband", max_epochs=9, factor=3)
    assert {trial.epochs for trial in trials} == {1, 3, 9}
    by_number = {trial.number: trial for trial in trials}
    promoted = [trial for trial in trials if trial.continues is not None]
    assert promoted
    for trial in promoted:
        assert trial.epochs > by_number[trial.continues].epochs
        assert trial.values == by_number[trial.continues].values


def test_the_other_algorithms_leave_the_epochs_to_the_recipe(tmp_path):
    trials = propose(tmp_path, 3, algorithm="random")
    assert [(trial.number, trial.epochs, trial.continues) for trial in trials] == [
        (number, None, None) for number in (1, 2, 3)
    ]


def test_hyperband_promotes_the_best_of_a_rung_in_which_a_trial_failed(tmp_path):
    config = SearchConfig(algorithm="hyperband", max_epochs=9)
    oracle = build_oracle(config, SPACES, seed=0, folder=tmp_path)
    promoted = []
    while proposal := ask(oracle):
        tell(oracle, proposal, None if proposal.number == 2 else proposal.values[RATE])
        promoted += [proposal.continues] if proposal.continues else []
    assert promoted
    assert 2 not in promoted


def test_bayesian_search_leaves_the_region_where_trials_fail(tmp_path):
    config = SearchConfig(algorithm="bayesian", trials=14)
    oracle = build_oracle(config, SPACES, seed=3, folder=tmp_path)
    late_failures = 0
    while proposal := ask(oracle):
        rate = proposal.values[RATE]
        failed = rate > 1e-3
        tell(oracle, proposal, None if failed else -abs(math.log10(rate) + 3.5))
        late_failures += failed and proposal.number > 7
    assert late_failures <= 3


def test_keras_tuner_choices_may_hold_null(tmp_path):
    spaces = {("train", "optimizer", "clip_norm"): ChoiceSpace(search="choice", values=(None, 1.0))}
    oracle = build_oracle(SearchConfig(algorithm="grid"), spaces, seed=0, folder=tmp_path)
    first = ask(oracle)
    assert first is not None
    assert first.values == {("train", "optimizer", "clip_norm"): None}
