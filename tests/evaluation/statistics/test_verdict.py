import pytest

from imagetune.evaluation.statistics.intervals import Estimate
from imagetune.evaluation.statistics.verdict import TrainingCourse, judge_gap, subtract_estimates


def verdict(train, test, val=None, *, baseline=0.2, images=1000, course=None):
    accuracies = {"train": Estimate(*train), "test": Estimate(*test)}
    if val is not None:
        accuracies["val"] = Estimate(*val)
    return judge_gap(accuracies, dict.fromkeys(accuracies, images), baseline=baseline, confidence=0.95, course=course)


def test_the_difference_of_two_metrics_has_the_interval_of_both():
    # By hand: 0.9 - 0.8, sqrt(0.03^2 + 0.04^2) = 0.05 below and sqrt(0.05^2 + 0.12^2) = 0.13 above.
    gap = subtract_estimates(Estimate(0.9, 0.87, 0.95), Estimate(0.8, 0.68, 0.84))
    assert (gap.value, gap.low, gap.high) == pytest.approx((0.1, 0.05, 0.23))


@pytest.mark.parametrize(
    ("train", "test", "code"),
    [
        ((0.99, 0.98, 1.0), (0.80, 0.75, 0.85), "gap"),
        ((0.95, 0.94, 0.96), (0.94, 0.92, 0.96), "close"),
        ((0.97, 0.96, 0.98), (0.94, 0.93, 0.95), "close"),
        ((0.95, 0.93, 0.97), (0.90, 0.60, 1.00), "too-few"),
        ((0.95, 0.93, 0.97), (0.93, 0.80, 1.00), "too-few"),
        ((0.45, 0.40, 0.50), (0.44, 0.40, 0.48), "under-fitted"),
        ((0.80, 0.79, 0.81), (0.95, 0.94, 0.96), "test-easier"),
        ((1.00, 0.99, 1.00), (0.40, 0.30, 0.50), "gap"),
    ],
)
def test_the_gap_and_its_interval_decide(train, test, code):
    assert verdict(train, test)["code"] == code


def test_the_words_hold_the_metrics():
    found = verdict((0.99, 0.98, 1.0), (0.80, 0.75, 0.85), (0.81, 0.77, 0.85))
    assert found["title"] == "Test is 19.0 points below training"
    assert found["text"].startswith(
        "Accuracy is 99.0% on 1,000 training images (98.0 to 100.0), 81.0% on 1,000 validation images "
        "(77.0 to 85.0) and 80.0% on 1,000 test images (75.0 to 85.0); 95% intervals are in brackets. "
        "Test is 19.0 points below training (95% interval "
    )
    assert "Validation is also" not in found["text"]
    assert found["advice"]


def test_only_a_validation_loss_that_rose_is_over_fitting():
    course = TrainingCourse(rose=True)
    found = verdict((0.99, 0.98, 1.0), (0.80, 0.75, 0.85), course=course)
    assert (found["code"], found["title"]) == ("over-fitted", "Over-fitted")
    assert "the validation loss rose" in found["text"]
    assert verdict((0.95, 0.94, 0.96), (0.94, 0.92, 0.96), course=course)["code"] == "close"


@pytest.mark.parametrize("rose", [True, False])
def test_a_frozen_backbone_has_no_unfrozen_blocks_to_advise_about(rose):
    gap = (0.99, 0.98, 1.0), (0.80, 0.75, 0.85)
    assert "unfrozen blocks" not in verdict(*gap, course=TrainingCourse(frozen=True, rose=rose))["advice"]
    assert "fewer unfrozen blocks" in verdict(*gap, course=TrainingCourse(rose=True))["advice"]


def test_stages_that_were_dropped_are_not_advised_again():
    gap = (0.99, 0.98, 1.0), (0.80, 0.75, 0.85)
    assert "unfreeze blocks" in verdict(*gap, course=TrainingCourse(frozen=True))["advice"]
    advice = verdict(*gap, course=TrainingCourse(frozen=True, dropped=("top",)))["advice"]
    assert "unfreeze" not in advice
    assert advice.endswith("A stage was tried and brought nothing on validation: top.")


def test_a_gap_to_validation_is_not_waved_through_where_the_test_has_none():
    found = verdict((1.0, 0.97, 1.0), (0.97, 0.85, 1.0), (0.67, 0.50, 0.80))
    assert (found["code"], found["title"]) == ("gap", "Validation is 33.0 points below training")
    assert "the two sets of new images disagree" in found["text"]
    # A validation of few images may be that far below by chance.
    assert verdict((1.0, 0.97, 1.0), (0.97, 0.95, 1.0), (0.67, 0.40, 1.0))["code"] == "close"


def test_the_loss_of_one_epoch_says_nothing_about_training_for_too_long():
    gap = (1.0, 0.98, 1.0), (0.80, 0.75, 0.85), (0.67, 0.60, 0.75)
    assert "did not rise" not in verdict(*gap, course=TrainingCourse())["text"]
    assert "did not rise" in verdict(*gap, course=TrainingCourse(rose=False))["text"]


def test_under_fitting_is_judged_against_predicting_the_largest_class():
    assert "would be right on 20.0% of the training images" in verdict((0.45, 0.4, 0.5), (0.44, 0.4, 0.48))["text"]


def test_a_validation_that_flatters_is_reported():
    text = verdict((0.99, 0.98, 1.0), (0.80, 0.78, 0.82), (0.95, 0.94, 0.96))["text"]
    assert text.endswith(
        "Validation is also 15.0 points above test: what was selected on it looks better there than it is."
    )


def test_a_missing_interval_counts_as_the_metric_itself():
    assert verdict((0.95, None, None), (0.94, None, None))["code"] == "close"


def test_there_is_no_verdict_without_both_ends_of_the_gap():
    assert judge_gap({"test": Estimate(0.9, 0.8, 1.0)}, {"test": 9}, baseline=0.5, confidence=0.95) is None
