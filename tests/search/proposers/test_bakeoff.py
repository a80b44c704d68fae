"""The trials of a bake-off: probes one by one, then the best fine-tuned."""

import pytest

from imagetune.recipe.sections.search import ChoiceSpace, IntSpace
from imagetune.search.proposers.bakeoff import ProbeProposer, count_probes, list_fine_tunings, select_compared
from imagetune.search.proposers.finalists import rank_candidates
from imagetune.search.proposers.protocol import Turn
from imagetune.search.records.trial import Trial, TrialResult

BACKBONE, SIZE = ("model", "backbone"), ("data", "image_size")
SPACES = {
    BACKBONE: ChoiceSpace(search="choice", values=("small", "large")),
    SIZE: IntSpace(search="int", low=96, high=160, step=64),
}


PROBES = [
    Trial(f"{number:03d}", {BACKBONE: name, SIZE: size})
    for number, (name, size) in enumerate([("small", 96), ("small", 160), ("large", 96), ("large", 160)], start=1)
]


def ended(trial, objective):
    return TrialResult(trial, "completed" if objective is not None else "failed", objective, 0.0, 1.0)


def probe_all(objective_of, *, keep=2, direction="max"):
    """Return the probes of a bake-off in their order, each told what `objective_of` says of its values."""
    proposer, probes = ProbeProposer(SPACES, keep=keep, direction=direction), []
    while not isinstance(trial := proposer.ask(), Turn):
        probes.append(trial)
        proposer.tell(trial, objective_of(trial.values))
    return probes


def settings_of(probes):
    return [(trial.values[BACKBONE], trial.values[SIZE]) for trial in probes]


def test_every_backbone_is_probed_at_the_first_size_and_the_best_at_the_others():
    probes = probe_all(lambda values: 1.0 if values[BACKBONE] == "large" else 0.5)
    assert [trial.trial_id for trial in probes] == ["001", "002", "003", "004"]
    assert settings_of(probes) == [("small", 96), ("large", 96), ("large", 160), ("small", 160)]


def test_a_backbone_that_is_worse_at_the_first_size_is_not_probed_at_the_others():
    def lose(values):
        return 1.0 if values[BACKBONE] == "small" else 2.0

    assert settings_of(probe_all(lose, keep=1, direction="min"))[2:] == [("small", 160)]
    assert settings_of(probe_all(lose, keep=1, direction="max"))[2:] == [("large", 160)]


def test_a_backbone_whose_probe_failed_is_not_probed_again():
    probes = probe_all(lambda values: None if values[BACKBONE] == "large" else 0.5)
    assert settings_of(probes) == [("small", 96), ("large", 96), ("small", 160)]


@pytest.mark.parametrize(("keep", "expected"), [(1, 3), (2, 4), (6, 4)])
def test_the_number_of_probes_is_known_before_them(keep, expected):
    assert count_probes(SPACES, keep=keep) == expected == len(probe_all(lambda _values: 0.5, keep=keep))


def test_probes_run_one_at_a_time():
    proposer = ProbeProposer(SPACES, keep=2, direction="max")
    first = proposer.ask()
    assert proposer.ask() is Turn.WAIT
    proposer.tell(first, None)
    assert proposer.ask().trial_id == "002"


def test_the_best_are_fine_tuned_with_the_recipes_seed_first():
    candidates = rank_candidates([ended(trial, trial.values[SIZE] / 200) for trial in PROBES], "max")
    trials = list_fine_tunings(candidates[:2], repeats=2, seed=7)
    assert [(trial.trial_id, trial.seed, trial.repeats) for trial in trials] == [
        ("002-1", None, None),
        ("004-1", None, None),
        ("002-2", 8, "002-1"),
        ("004-2", 8, "004-1"),
    ]
    assert all(trial.phase == "final" for trial in trials)


def test_a_probe_with_a_better_metric_does_not_beat_a_fine_tuning():
    probes = [ended(trial, 0.99) for trial in PROBES]
    tuned = list_fine_tunings(rank_candidates(probes, "max")[:2], repeats=1, seed=7)
    results = [*probes, ended(tuned[0], 0.6), ended(tuned[1], 0.7)]
    best = rank_candidates(select_compared(results, "bakeoff"), "max")
    assert [candidate.trial.trial_id for candidate in best] == [tuned[1].trial_id, tuned[0].trial_id]


def test_without_fine_tuning_the_best_probe_wins_and_other_searches_are_left_alone():
    probes = [ended(trial, 0.5) for trial in PROBES]
    assert select_compared(probes, "bakeoff") == probes
    tuned = [ended(trial, 0.6) for trial in list_fine_tunings(rank_candidates(probes, "max")[:1], repeats=1, seed=7)]
    assert select_compared([*probes, *tuned], "random") == [*probes, *tuned]


def test_failed_fine_tunings_leave_nothing_to_win():
    probes = [ended(trial, 0.5) for trial in PROBES]
    failed = [ended(trial, None) for trial in list_fine_tunings(rank_candidates(probes, "max")[:1], repeats=1, seed=7)]
    assert select_compared([*probes, *failed], "bakeoff") == failed
