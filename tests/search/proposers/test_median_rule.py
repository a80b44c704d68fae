import pytest

from imagetune.recipe.sections.train import StageConfig
from imagetune.search.proposers.median_rule import falls_behind, may_end_after

EARLIER = [[0.5, 0.6, 0.7], [0.4, 0.5, 0.9], [0.3, 0.5, 0.6], [0.1, 0.2, 0.3], [0.6, 0.6, 0.6]]


@pytest.mark.parametrize(
    ("best", "epoch", "ends"), [(0.39, 1, True), (0.4, 1, False), (0.5, 2, False), (0.44, 2, True)]
)
def test_a_trial_ends_when_its_best_is_under_the_median_of_the_running_means(best, epoch, ends):
    # Running means after two epochs: 0.55, 0.45, 0.4, 0.15, 0.6.
    assert falls_behind(best, EARLIER, epoch=epoch, direction="max") is ends


def test_for_a_loss_more_is_worse():
    assert falls_behind(0.46, EARLIER, epoch=2, direction="min")
    assert not falls_behind(0.45, EARLIER, epoch=2, direction="min")


def test_four_trials_have_no_middle():
    assert not falls_behind(0.0, EARLIER[:4], epoch=1, direction="max")
    assert not falls_behind(0.0, [*EARLIER[:4], []], epoch=1, direction="max")


def test_a_trial_that_ended_before_counts_with_what_it_had():
    short = [*EARLIER[:4], [0.9]]
    assert falls_behind(0.44, short, epoch=2, direction="max")
    assert not falls_behind(0.45, short, epoch=2, direction="max")


def stage(epochs, **schedule):
    return StageConfig.model_validate(
        {"name": f"s{epochs}", "epochs": epochs, "learning_rate": 1e-3, "schedule": schedule or "cosine"}
    )


def allowed(*stages):
    return [epoch for epoch in range(1, sum(one.epochs for one in stages) + 1) if may_end_after(stages, epoch)]


def test_no_trial_ends_after_the_first_epoch_of_a_stage_or_after_the_last_of_all():
    assert allowed(stage(3), stage(4)) == [2, 3, 5, 6]


def test_no_trial_ends_while_its_learning_rate_still_rises():
    assert allowed(stage(6, name="linear", warmup_epochs=2.5)) == [4, 5]
    assert allowed(stage(10, name="one_cycle", rise_fraction=0.4)) == [5, 6, 7, 8, 9]
