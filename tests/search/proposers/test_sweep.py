"""One variable at a time: which settings, in which order, and what is said of their effects."""

import numpy as np
import pytest

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.recipe.sections.search import ChoiceSpace, IntSpace, LogUniformSpace, UniformSpace
from imagetune.search.proposers.protocol import Turn
from imagetune.search.proposers.sweep import (
    SweepProposer,
    combine_better_values,
    compute_sweep_effects,
    list_points,
    list_sweep_settings,
    list_sweep_trials,
)
from imagetune.search.records.trial import TrialResult

RATE, DEPTH, DECAY, BATCH = ("train", "rate"), ("train", "depth"), ("train", "decay"), ("train", "batch")
SPACES = {
    RATE: LogUniformSpace(search="log_uniform", low=1e-5, high=1e-1, default=2e-3),
    DEPTH: ChoiceSpace(search="choice", values=("none", "top", "all"), default="top"),
}
CONDITIONAL = {
    DECAY: UniformSpace(search="uniform", low=0.6, high=1.0, default=0.8, when={"train.depth": ["all"]}),
    DEPTH: ChoiceSpace(search="choice", values=("none", "all")),
}


def results_of(settings, metrics, *, repeats=3, failed=()):
    """Trials of a sweep whose metrics are given by setting, one a seed."""
    trials = list_sweep_trials(settings, repeats=repeats, seed=7)
    ended = []
    for index, trial in enumerate(trials):
        place, extra = index % len(settings), index // len(settings)
        if place in failed:
            if not extra:
                ended.append(TrialResult(trial, "failed", None, 0.0, 1.0, error="diverged: NaN"))
            continue
        ended.append(TrialResult(trial, "completed", metrics[place][extra], 0.0, 1.0))
    return ended


def test_a_range_is_tried_at_both_ends_its_default_and_between():
    points = list_points(SPACES[RATE])
    assert len(points) == 5
    assert (points[0], points[-1]) == (1e-5, 1e-1)
    assert 2e-3 in points
    assert list(points) == sorted(points)
    assert points[1] == pytest.approx(1e-4)


def test_whole_numbers_are_tried_on_their_steps():
    assert list_points(IntSpace(search="int", low=1, high=3)) == (1, 2, 3)
    assert list_points(IntSpace(search="int", low=8, high=64, step=8, default=32)) == (8, 24, 32, 48, 64)


def test_one_key_changes_at_a_time_and_the_defaults_come_first():
    settings = list_sweep_settings(SPACES)
    assert settings[0].values == {RATE: 2e-3, DEPTH: "top"}
    assert settings[0].key is None
    for setting in settings[1:]:
        changed = [path for path in SPACES if setting.values[path] != settings[0].values[path]]
        assert changed == [setting.key]
        assert setting.against == 0
    assert len(settings) == 1 + 4 + 2


def test_a_conditional_space_varies_where_its_condition_is_met():
    settings = list_sweep_settings(CONDITIONAL)
    assert settings[0].values == {DEPTH: "none"}
    assert settings[1].values == {DECAY: 0.8, DEPTH: "all"}
    varied = [setting for setting in settings if setting.key == DECAY]
    assert [setting.values[DECAY] for setting in varied] == [0.6, 0.7, 0.9, 1.0]
    assert all(setting.values[DEPTH] == "all" and setting.against == 1 for setting in varied)


def test_conditions_that_take_two_changes_get_a_setting_to_be_compared_with():
    spaces = {
        DEPTH: ChoiceSpace(search="choice", values=("none", "all")),
        BATCH: ChoiceSpace(search="choice", values=(16, 32)),
        DECAY: ChoiceSpace(search="choice", values=(0.8, 1.0), when={"train.depth": ["all"], "train.batch": [32]}),
    }
    settings = list_sweep_settings(spaces)
    (varied,) = [setting for setting in settings if setting.key == DECAY]
    base = settings[varied.against]
    assert base.values == {DEPTH: "all", BATCH: 32, DECAY: 0.8}
    assert base.key is None
    effects = compute_sweep_effects(settings, results_of(settings, [(0.5, 0.6, 0.7)] * len(settings)), direction="max")
    assert effects[varied.against].difference is None


def test_all_settings_have_a_seed_before_any_has_the_next():
    trials = list_sweep_trials(list_sweep_settings(SPACES), repeats=3, seed=7)
    assert [trial.seed for trial in trials] == [None] * 7 + [8] * 7 + [9] * 7
    assert [trial.trial_id for trial in trials[:2]] == ["001", "002"]
    assert (trials[8].trial_id, trials[8].repeats, trials[8].values) == ("009", "002", trials[1].values)
    assert len({trial.trial_id for trial in trials}) == 21


def test_more_repeats_only_add_trials():
    settings = list_sweep_settings(SPACES)
    assert list_sweep_trials(settings, repeats=3, seed=7)[:14] == list_sweep_trials(settings, repeats=2, seed=7)


def test_settings_that_failed_are_not_repeated():
    trials = list_sweep_trials(list_sweep_settings(SPACES), repeats=2, seed=7)
    proposer = SweepProposer(trials)
    asked = [proposer.ask() for _ in range(7)]
    for trial in asked:
        proposer.tell(trial, None if trial.trial_id == "003" else 0.5)
    rest = [proposer.ask() for _ in range(7)]
    assert [trial.trial_id for trial in rest[:-1]] == ["008", "009", "011", "012", "013", "014"]
    assert rest[-1] is Turn.OVER


def test_effects_are_of_the_same_seeds_and_corrected_together():
    random = np.random.default_rng(0)
    settings = list_sweep_settings(SPACES)
    seeds = random.normal(0, 0.1, 3)
    shifts = [0.0, -0.2, 0.002, 0.001, 0.0, 0.15, -0.001]
    metrics = [0.6 + shift + seeds + random.normal(0, 0.003, 3) for shift in shifts]
    effects = compute_sweep_effects(settings, results_of(settings, metrics), direction="max")
    for effect, metric in zip(effects[1:], metrics[1:], strict=True):
        assert effect.difference == pytest.approx(np.mean(metric - metrics[0]))
        assert effect.low < effect.difference < effect.high
        # Seeds that shift all settings alike leave the differences alone.
        assert effect.high - effect.low < 0.05
    assert [effect.p_holm for effect in effects[1:]] == pytest.approx(
        adjust_p_values([effect.p for effect in effects[1:]])
    )
    assert [effect.word for effect in effects[1:]] == [
        *("worse", "can't tell", "can't tell", "can't tell"),
        *("better", "can't tell"),
    ]
    assert combine_better_values(effects, direction="max") == {DEPTH: "none"}


def test_a_smaller_loss_is_better():
    settings = list_sweep_settings({DEPTH: ChoiceSpace(search="choice", values=("none", "all"))})
    metrics = [(0.9, 0.92, 0.88), (0.5, 0.53, 0.47)]
    (_, effect) = compute_sweep_effects(settings, results_of(settings, metrics), direction="min")
    assert effect.word == "better"


def test_of_two_better_values_of_a_key_the_best_is_combined():
    spaces = {DEPTH: ChoiceSpace(search="choice", values=("none", "top", "all"))}
    settings = list_sweep_settings(spaces)
    metrics = [(0.5, 0.5, 0.5), (0.600, 0.601, 0.602), (0.700, 0.702, 0.701)]
    effects = compute_sweep_effects(settings, results_of(settings, metrics), direction="max")
    assert [effect.word for effect in effects[1:]] == ["better", "better"]
    assert combine_better_values(effects, direction="max") == {DEPTH: "all"}
    reverse = compute_sweep_effects(
        settings, results_of(settings, [metrics[0], metrics[2], metrics[1]]), direction="max"
    )
    assert combine_better_values(reverse, direction="max") == {DEPTH: "top"}


def test_the_values_that_a_condition_needs_are_combined_with_it():
    settings = list_sweep_settings(CONDITIONAL)
    metrics = [(0.5, 0.52, 0.48), (0.5, 0.5, 0.5), *[(0.5, 0.5, 0.5)] * 3, (0.7, 0.7001, 0.7002)]
    effects = compute_sweep_effects(settings, results_of(settings, metrics), direction="max")
    assert effects[-1].word == "better"
    assert combine_better_values(effects, direction="max") == {DECAY: 1.0, DEPTH: "all"}


def test_one_seed_has_no_interval():
    settings = list_sweep_settings(SPACES)
    effects = compute_sweep_effects(
        settings, results_of(settings, [(0.5 + 0.1 * at,) for at in range(7)], repeats=1), direction="max"
    )
    assert effects[3].difference == pytest.approx(0.3)
    assert all(effect.low is None and effect.p is None and effect.word == "can't tell" for effect in effects)


def test_equal_differences_of_every_seed_prove_nothing():
    settings = list_sweep_settings({DEPTH: ChoiceSpace(search="choice", values=("none", "all"))})
    (_, effect) = compute_sweep_effects(
        settings, results_of(settings, [(0.5, 0.6, 0.7), (0.6, 0.7, 0.8)]), direction="max"
    )
    assert effect.difference == pytest.approx(0.1)
    assert (effect.low, effect.p, effect.word) == (None, None, "can't tell")


def test_what_failed_says_why_and_what_waits_is_not_run():
    settings = list_sweep_settings(SPACES)
    ended = results_of(settings, [(0.5, 0.6, 0.7)] * 7, failed=(2,))
    effects = compute_sweep_effects(
        settings,
        [result for result in ended if "004" not in (result.trial.trial_id, result.trial.repeats)],
        direction="max",
    )
    assert (effects[2].word, effects[2].error, effects[2].mean) == ("failed", "diverged: NaN", None)
    assert effects[3].word == "not run"


def test_a_seed_that_failed_is_left_out_of_both():
    settings = list_sweep_settings({DEPTH: ChoiceSpace(search="choice", values=("none", "all"))})
    ended = results_of(settings, [(0.5, 0.6, 0.9), (0.6, 0.75, 0.0)])
    (_, effect) = compute_sweep_effects(settings, ended[:-1], direction="max")
    assert effect.seeds == 2
    assert effect.difference == pytest.approx(0.125)
