from __future__ import annotations

import math
import random

import pytest

from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, LogUniformSpace, SearchConfig, UniformSpace
from imagetune.search.proposers.finalists import get_direction
from imagetune.search.proposers.oracle import OracleProposer
from imagetune.search.proposers.protocol import Turn
from imagetune.search.records.trial import Known, Trial
from imagetune.search.space import count_grid_points, discretise_spaces, get_default_setting, is_setting

RATE = ("train", "stages", 0, "learning_rate")
BATCH = ("train", "batch_size")
OPTIMIZER = ("train", "optimizer")
DEPTH = ("train", "stages", 1, "unfreeze")
DECAY = ("train", "stages", 1, "layer_decay")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-5, high=1e-1),
    BATCH: IntSpace(search="int", low=8, high=32, step=8),
}
SECTIONS = {
    **SPACES,
    OPTIMIZER: ChoiceSpace(search="choice", values=("adamw", {"name": "sgd", "momentum": 0.9}, "lion")),
    DEPTH: ChoiceSpace(search="choice", values=("none", "last 3 blocks", "all"), default="last 3 blocks"),
    DECAY: UniformSpace(
        search="uniform", low=0.5, high=1.0, when={"train.stages.1.unfreeze": ["last 3 blocks", "all"]}
    ),
}
FEW = {BATCH: SPACES[BATCH], OPTIMIZER: SECTIONS[OPTIMIZER]}
ALGORITHMS = ["random", "grid", "bayesian", "hyperband"]


def proposer(spaces=SPACES, *, seed=0, epochs=9, known=(), **settings):
    return OracleProposer(SearchConfig(**settings), spaces, seed=seed, epochs=epochs, known=known)


def judged(trial):
    """Best at a rate of 1e-3."""
    return -abs(math.log10(trial.values[RATE]) + 3)


def run(oracle, *, slots=1, count=1000, judge=judged, shuffle=0):
    """Ask and tell with up to `slots` trials open, and return the trials in the order in which they were asked for."""
    picks, asked, running = random.Random(shuffle), [], []
    while len(asked) < count:
        turn = oracle.ask() if len(running) < slots else Turn.WAIT
        if isinstance(turn, Trial):
            asked.append(turn)
            running.append(turn)
        elif running:
            ended = running.pop(picks.randrange(len(running)))
            oracle.tell(ended, judge(ended))
        else:
            assert turn is Turn.OVER
            break
    return asked


def settings_of(trials):
    return [trial.values for trial in trials]


def test_only_losses_are_better_when_smaller():
    objectives = ("loss", "mae", "accuracy", "precision", "recall", "f1", "r2")
    assert [get_direction(name) for name in objectives] == ["min", "min", "max", "max", "max", "max", "max"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("seed", [0, 5])
def test_the_same_seed_proposes_the_same_trials(algorithm, seed):
    first, second = (
        run(proposer(SECTIONS, algorithm=algorithm, seed=seed, trials=12), slots=2, count=12) for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_neighbouring_seeds_share_the_defaults_alone(algorithm):
    first, second = (
        {trial.values[RATE] for trial in run(proposer(algorithm=algorithm, seed=seed, trials=20), count=6)}
        for seed in (0, 1)
    )
    assert first & second == {1e-3}


@pytest.mark.parametrize("slots", [2, 3, 5])
@pytest.mark.parametrize("algorithm", ["random", "grid"])
@pytest.mark.parametrize("spaces", [SPACES, SECTIONS, FEW], ids=["plain", "conditional", "few"])
def test_random_and_grid_propose_the_same_however_many_run_at_a_time(algorithm, slots, spaces):
    def fails_at_times(trial):
        return None if trial.values[BATCH] == 16 else 0.5

    alone = run(proposer(spaces, algorithm=algorithm, trials=30), judge=fails_at_times, count=60)
    oracle = proposer(spaces, algorithm=algorithm, trials=30)
    beside = run(oracle, slots=slots, judge=lambda _: 0.1, shuffle=slots, count=60)
    assert beside == alone


def test_all_slots_of_a_grid_are_in_use():
    oracle = proposer(algorithm="grid", trials=20)
    assert all(isinstance(oracle.ask(), Trial) for _ in range(8))


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_the_first_trial_is_the_default_setting(algorithm):
    spaces = {**SECTIONS, BATCH: IntSpace(search="int", low=8, high=32, step=8, default=24)}
    first = proposer(spaces, algorithm=algorithm).ask()
    assert first.values == get_default_setting(spaces)
    assert first.values[BATCH] == 24


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_a_search_stops_after_its_trials(algorithm):
    assert len(run(proposer(algorithm=algorithm, trials=7), slots=2)) == 7


def test_a_grid_visits_every_point_once():
    trials = run(proposer(algorithm="grid", trials=20))
    assert len({tuple(values.values()) for values in settings_of(trials)}) == len(trials) == 5 * 4


def test_a_grid_has_a_conditional_space_only_where_it_is_in_force():
    trials = run(proposer(SECTIONS, algorithm="grid", trials=1000), judge=lambda _: 0.5)
    texts = {str(values) for values in settings_of(trials)}
    assert len(texts) == len(trials) == count_grid_points(discretise_spaces(SECTIONS)) == 5 * 4 * 3 * (1 + 2 * 5)
    assert all((DECAY in values) == (values[DEPTH] != "none") for values in settings_of(trials))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("slots", [1, 3])
def test_every_proposal_is_a_setting_of_the_spaces(algorithm, slots):
    trials = run(proposer(SECTIONS, algorithm=algorithm, trials=14), slots=slots, count=40)
    assert all(is_setting(SECTIONS, trial.values) for trial in trials)
    assert {DECAY in trial.values for trial in trials} == {True, False}
    assert all(trial.values[OPTIMIZER] in ("adamw", {"name": "sgd", "momentum": 0.9}, "lion") for trial in trials)


@pytest.mark.parametrize("algorithm", ["random", "bayesian"])
def test_a_small_space_is_searched_through_without_repeats(algorithm):
    trials = run(proposer(FEW, algorithm=algorithm, trials=50), judge=lambda trial: trial.values[BATCH] / 100)
    assert len({str(values) for values in settings_of(trials)}) == len(trials) == 4 * 3


def test_the_other_algorithms_leave_the_epochs_to_the_recipe():
    trials = run(proposer(algorithm="random"), count=3)
    assert [(trial.trial_id, trial.epochs, trial.continues) for trial in trials] == [
        (number, None, None) for number in ("001", "002", "003")
    ]


@pytest.mark.parametrize("slots", [1, 3])
def test_hyperband_gives_more_epochs_to_the_better_trials(slots):
    trials = run(proposer(algorithm="hyperband", factor=3), slots=slots)
    assert {trial.epochs for trial in trials} == {1, 3, 9}
    by_name = {trial.trial_id: trial for trial in trials}
    promoted = [trial for trial in trials if trial.continues is not None]
    assert promoted
    for trial in promoted:
        assert trial.epochs > by_name[trial.continues].epochs
        assert trial.values == by_name[trial.continues].values
    left = [
        trial for trial in trials if trial.epochs == 1 and trial.trial_id not in {each.continues for each in promoted}
    ]
    assert slots > 1 or max(map(judged, left)) <= min(judged(trial) for trial in promoted if trial.epochs == 3)


def test_hyperband_waits_for_a_rung():
    oracle = proposer(algorithm="hyperband", epochs=3)
    opened = []
    while isinstance(turn := oracle.ask(), Trial):
        opened.append(turn)
    assert turn is Turn.WAIT
    assert {trial.continues for trial in opened} == {None}
    for trial in opened:
        oracle.tell(trial, judged(trial))
    assert oracle.ask().continues is not None


def test_max_epochs_wins_over_the_epochs_of_the_recipe():
    assert max(trial.epochs for trial in run(proposer(algorithm="hyperband", epochs=9, max_epochs=4))) == 4
    assert max(trial.epochs for trial in run(proposer(algorithm="hyperband", epochs=7))) == 7


@pytest.mark.parametrize("slots", [1, 3])
def test_hyperband_promotes_the_best_of_a_rung_in_which_trials_failed(slots):
    failed = set()

    def fails_above(trial):
        if trial.values[RATE] > 1e-2 or trial.trial_id == "002":
            failed.add(trial.trial_id)
            return None
        return judged(trial)

    trials = run(proposer(algorithm="hyperband"), slots=slots, judge=fails_above)
    promoted = {trial.continues for trial in trials} - {None}
    assert failed
    assert promoted
    assert not promoted & failed
    assert max(trial.epochs for trial in trials) == 9


def test_hyperband_fills_its_rungs_in_a_space_that_is_smaller_than_they_are():
    two = {OPTIMIZER: ChoiceSpace(search="choice", values=("adamw", "sgd"))}
    trials = run(proposer(two, algorithm="hyperband"), judge=lambda trial: float(trial.values[OPTIMIZER] == "sgd"))
    assert max(trial.epochs for trial in trials) == 9
    first = {}
    for trial in trials:
        first.setdefault((trial.values[OPTIMIZER], trial.epochs), trial.trial_id)
    assert all(trial.continues in {None, *first.values()} for trial in trials)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_failures_end_no_search(algorithm):
    trials = run(proposer(algorithm=algorithm, trials=20), judge=lambda _: None, slots=2)
    assert len(trials) >= 20 - 1


@pytest.mark.parametrize("slots", [1, 2])
def test_bayesian_search_leaves_the_region_where_trials_fail(slots):
    def fails_above(trial):
        rate = trial.values[RATE]
        return None if rate > 1e-3 else -abs(math.log10(rate) + 3.5)

    trials = run(proposer(algorithm="bayesian", trials=16, seed=3), judge=fails_above, slots=slots)
    assert sum(fails_above(trial) is None for trial in trials[8:]) <= 3


@pytest.mark.parametrize("slots", [1, 2])
def test_bayesian_search_closes_in_on_the_best(slots):
    trials = run(proposer(algorithm="bayesian", trials=20, seed=4), slots=slots)
    late = sorted(map(judged, trials[10:]))
    assert late[-1] > -0.05
    assert late[len(late) // 2] > -0.5


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_a_trial_may_be_told_with_other_values(algorithm):
    """A journal of another version of KerasTuner has other proposals under the same names."""
    oracle = proposer(SECTIONS, algorithm=algorithm, trials=12)
    for number in range(9):
        trial = oracle.ask()
        other = {RATE: 1e-4 * (number + 1), BATCH: 16, OPTIMIZER: "lion", DEPTH: "none"}
        oracle.tell(Trial(trial.trial_id, other, epochs=trial.epochs), 0.1 * number)
    following = oracle.ask()
    assert is_setting(SECTIONS, following.values)
    if algorithm == "hyperband":
        assert following.continues == "009"
        assert following.values == {RATE: pytest.approx(9e-4), BATCH: 16, OPTIMIZER: "lion", DEPTH: "none"}


def test_a_choice_may_hold_null():
    spaces = {("train", "optimizer", "clip_norm"): ChoiceSpace(search="choice", values=(None, 1.0))}
    assert settings_of(run(proposer(spaces, algorithm="grid"), judge=lambda _: 0.0)) == [
        {("train", "optimizer", "clip_norm"): None},
        {("train", "optimizer", "clip_norm"): 1.0},
    ]


KNOWN = tuple(
    Known({RATE: rate, BATCH: batch}, judged(Trial("", {RATE: rate})) - batch / 1000, f"earlier trial {rate}")
    for rate in (1e-5, 1e-4, 2e-3, 1e-2, 1e-1)
    for batch in (8, 24)
)


@pytest.mark.parametrize("algorithm", ["random", "bayesian", "hyperband"])
def test_the_best_of_an_earlier_search_is_tried_first(algorithm):
    assert proposer(algorithm=algorithm, known=KNOWN).ask().values == {RATE: 2e-3, BATCH: 8}


@pytest.mark.parametrize("algorithm", ["random", "grid", "bayesian"])
def test_what_earlier_searches_tried_is_not_tried_again(algorithm):
    few = {BATCH: SPACES[BATCH], OPTIMIZER: SECTIONS[OPTIMIZER]}
    known = [Known({BATCH: batch, OPTIMIZER: "adamw"}, batch / 100, "earlier") for batch in (8, 16, 24)]
    trials = run(proposer(few, algorithm=algorithm, trials=50, known=known), judge=lambda _: 0.1, slots=2)
    texts = [str(values) for values in settings_of(trials)]
    assert len(texts) == len(set(texts)) == 4 * 3 - 2
    tried = [values[BATCH] for values in settings_of(trials) if values[OPTIMIZER] == "adamw"]
    assert sorted(tried) == [24, 32]
    assert [trial.trial_id for trial in trials] == [f"{number:03d}" for number in range(1, 11)]


def test_bayesian_search_needs_no_random_start_after_an_earlier_search():
    plain = run(proposer(algorithm="bayesian", trials=10, seed=2), count=6)
    warm = run(proposer(algorithm="bayesian", trials=10, seed=2, known=KNOWN), count=6)
    assert max(abs(math.log10(trial.values[RATE]) + 3) for trial in warm) < 1.0
    assert max(abs(math.log10(trial.values[RATE]) + 3) for trial in plain) > 1.0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_warm_start_repeats(algorithm):
    first, second = (
        run(proposer(algorithm=algorithm, trials=20, known=known), count=12) for known in (KNOWN, KNOWN[::-1])
    )
    assert first == second
