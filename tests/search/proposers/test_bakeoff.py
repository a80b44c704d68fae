"""The trials of a bake-off: probes one by one, then the best fine-tuned."""

from imagetune.recipe.sections.search import ChoiceSpace, IntSpace
from imagetune.search.proposers.bakeoff import ProbeProposer, list_fine_tunings, list_probes, select_compared
from imagetune.search.proposers.finalists import rank_candidates
from imagetune.search.proposers.protocol import Turn
from imagetune.search.records.trial import TrialResult

BACKBONE, SIZE = ("model", "backbone"), ("data", "image_size")
SPACES = {
    BACKBONE: ChoiceSpace(search="choice", values=("small", "large")),
    SIZE: IntSpace(search="int", low=96, high=160, step=64),
}


def ended(trial, objective):
    return TrialResult(trial, "completed" if objective is not None else "failed", objective, 0.0, 1.0)


def test_every_backbone_is_probed_at_every_size():
    probes = list_probes(SPACES)
    assert [trial.trial_id for trial in probes] == ["001", "002", "003", "004"]
    assert [(trial.values[BACKBONE], trial.values[SIZE]) for trial in probes] == [
        *(("small", 96), ("small", 160)),
        *(("large", 96), ("large", 160)),
    ]


def test_probes_run_one_at_a_time():
    proposer = ProbeProposer(list_probes(SPACES))
    first = proposer.ask()
    assert proposer.ask() is Turn.WAIT
    proposer.tell(first, None)
    assert proposer.ask().trial_id == "002"


def test_the_best_are_fine_tuned_with_the_recipes_seed_first():
    candidates = rank_candidates([ended(trial, trial.values[SIZE] / 200) for trial in list_probes(SPACES)], "max")
    trials = list_fine_tunings(candidates[:2], repeats=2, seed=7)
    assert [(trial.trial_id, trial.seed, trial.repeats) for trial in trials] == [
        ("002-1", None, None),
        ("004-1", None, None),
        ("002-2", 8, "002-1"),
        ("004-2", 8, "004-1"),
    ]
    assert all(trial.phase == "final" for trial in trials)


def test_a_probe_with_a_better_metric_does_not_beat_a_fine_tuning():
    probes = [ended(trial, 0.99) for trial in list_probes(SPACES)]
    tuned = list_fine_tunings(rank_candidates(probes, "max")[:2], repeats=1, seed=7)
    results = [*probes, ended(tuned[0], 0.6), ended(tuned[1], 0.7)]
    best = rank_candidates(select_compared(results, "bakeoff"), "max")
    assert [candidate.trial.trial_id for candidate in best] == [tuned[1].trial_id, tuned[0].trial_id]


def test_without_fine_tuning_the_best_probe_wins_and_other_searches_are_left_alone():
    probes = [ended(trial, 0.5) for trial in list_probes(SPACES)]
    assert select_compared(probes, "bakeoff") == probes
    tuned = [ended(trial, 0.6) for trial in list_fine_tunings(rank_candidates(probes, "max")[:1], repeats=1, seed=7)]
    assert select_compared([*probes, *tuned], "random") == [*probes, *tuned]


def test_failed_fine_tunings_leave_nothing_to_win():
    probes = [ended(trial, 0.5) for trial in list_probes(SPACES)]
    failed = [ended(trial, None) for trial in list_fine_tunings(rank_candidates(probes, "max")[:1], repeats=1, seed=7)]
    assert select_compared([*probes, *failed], "bakeoff") == failed
