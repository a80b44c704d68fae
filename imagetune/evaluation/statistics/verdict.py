"""The verdict on over-fitting: what the gap between training, validation and test metrics means, in words.

A gap alone is no over-fitting: whoever fits the training images completely has one, and may be best all the same.
Over-fitted is a model whose validation loss rose while it was trained.

The gap is a difference of two accuracies, for multi_label of two mean F1, for regression of two R squared. Its interval
comes from the two intervals (MOVER: Newcombe, Statistics in Medicine 17, 1998; Zou and Donner, Statistics in Medicine
27, 2008), so that a gap that chance explains is not called over-fitting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import hypot

from imagetune.core.text import format_list
from imagetune.evaluation.statistics.intervals import Estimate

# A gap of 5 points is what people act on; a smaller one is everyday, even where it is statistically significant.
NOTABLE_GAP = 0.05
# "Close" is only said when a gap twice as large is ruled out.
TOLERATED_GAP = 0.10
# A model that makes more than half of the mistakes of always predicting the largest class hasn't learned its images.
UNDERFITTED_SHARE = 0.5

# By the metric that the gap is one of: see `imagetune.recipe.metrics.TaskMetrics.verdict`.
_SUBJECTS: Mapping[str, str] = {"accuracy": "Accuracy", "f1": "Mean F1 of the labels", "r2": "R squared"}
_UNDERFITTED: Mapping[str, str] = {
    "accuracy": (
        "Always predicting the largest class would be right on {baseline} of the training images. The model makes more "
        "than half of that baseline's mistakes, even on the images that it was trained on."
    ),
    "f1": (
        "Predicting every label for every image would reach a mean F1 of {baseline}. The model gets less than half of "
        "the way from there to 100%, even on the images that it was trained on."
    ),
    "r2": (
        "Always predicting the mean would reach {baseline}. The model gets less than half of the way from there to "
        "100%, even on the images that it was trained on."
    ),
}
_NAMES = {"train": "training", "val": "validation", "test": "test"}
_ADVICE = {
    "over-fitted": "More images help most; then {less}.",
    "gap": "More images help most; then {more}.",
    "under-fitted": (
        "Train longer, unfreeze more blocks, raise the learning rate, or take a larger backbone or larger images."
    ),
    "close": "Over-fitting does not limit the test metrics; look at the worst mistakes and at the labels.",
    "too-few": "Put more images into the test split before trusting a comparison.",
    "test-easier": (
        "That is unusual: look for test images that are easier than the others, or near-duplicates of training images."
    ),
}
_TITLES = {
    "over-fitted": "Over-fitted",
    "gap": "{side} is {points} points below training",
    "under-fitted": "Under-fitted",
    "close": "Training and test are close",
    "too-few": "Too few test images for a verdict",
    "test-easier": "Test is easier than training",
}


@dataclass(frozen=True)
class TrainingCourse:
    """How the tested model was trained, as far as the verdict rests on it.

    Attributes:
        frozen: Whether the backbone stayed frozen.
        rose: Whether the validation loss of the last stage rose clearly after its lowest epoch; None where it had too
            few epochs to tell, as a solved head has.
        dropped: Stages that were trained and brought nothing, so that the model is from before them.
    """

    frozen: bool = False
    rose: bool | None = None
    dropped: tuple[str, ...] = ()


def judge_gap(
    accuracies: Mapping[str, Estimate],
    images: Mapping[str, int],
    *,
    baseline: float,
    confidence: float,
    measure: str = "accuracy",
    power: str = "",
    course: TrainingCourse | None = None,
) -> dict[str, str] | None:
    """Return the verdict on over-fitting: what the gap between training and test means, with advice.

    Args:
        accuracies: Metric with interval by split: train, test, and val where there is one.
        images: Number of images by split.
        baseline: What a prediction that looks at no image reaches on the training split by the same metric, such as
            the accuracy of always predicting the largest class.
        confidence: Coverage of the intervals.
        measure: Name of the metric, one whose best value is 1.
        power: A sentence on the minimum detectable difference, where the test is too small for differences that
            people care about; else empty.
        course: How the model was trained; by default nobody knows.

    Returns:
        ``code`` (over-fitted, gap, under-fitted, close, too-few or test-easier), ``title``, ``text`` with the metrics,
        and ``advice``; None without both training and test metrics.
    """
    if "train" not in accuracies or "test" not in accuracies:
        return None
    if accuracies["train"].value is None or accuracies["test"].value is None:
        return None
    train = accuracies["train"]
    side, gap = _choose_side(accuracies)
    course = course or TrainingCourse()
    code = _choose_code(train, gap, baseline, rose=bool(course.rose))
    level = f"{100 * confidence:g}%"
    sentences = [
        f"{_SUBJECTS[measure]} is {_list_metrics(accuracies, images)}; {level} intervals are in brackets.",
        _explain(code, gap, level, _UNDERFITTED[measure].format(baseline=f"{100 * baseline:.1f}%"), side=side),
        *_describe_validation(accuracies, code, side, course),
    ]
    sentences += [power] if power else []
    title = _TITLES[code].format(side=_NAMES[side].capitalize(), points=_format_points(gap.value or 0.0))
    return {"code": code, "title": title, "text": " ".join(sentences), "advice": _advise(code, course)}


def subtract_estimates(first: Estimate, second: Estimate) -> Estimate:
    """Return the difference of two independent metrics, the first minus the second, with its MOVER interval."""
    one, other = _ends(first), _ends(second)
    value = one[1] - other[1]
    # The difference is lowest where the first metric is low and the second high: these two distances are independent
    # errors, which are added as squares. Subtracting opposite ends would give too wide an interval.
    low = value - hypot(one[1] - one[0], other[2] - other[1])
    high = value + hypot(one[2] - one[1], other[1] - other[0])
    return Estimate(value, low, high, method="mover")


def _advise(code: str, course: TrainingCourse) -> str:
    """Return what to do next, among the settings that the model's training has."""
    less = "stronger augmentation, more dropout or weight decay, fewer unfrozen blocks, or early stopping"
    more = "stronger augmentation, larger images or a larger backbone"
    if course.frozen:
        less = "a solved head (solve: true), more dropout or weight decay, or early stopping"
        more = "larger images, a larger backbone, or stages that unfreeze blocks of it"
    if course.frozen and course.dropped:
        more = "larger images or a larger backbone"
    advice = _ADVICE[code].format(less=less, more=more)
    if course.dropped and code in ("gap", "under-fitted"):
        several = len(course.dropped) > 1
        names = format_list(course.dropped, most=3)
        advice += f" {'Stages were' if several else 'A stage was'} tried and brought nothing on validation: {names}."
    return advice


def _choose_side(accuracies: Mapping[str, Estimate]) -> tuple[str, Estimate]:
    """Return the split whose gap to training decides, and that gap: the test, but for a validation that says more.

    New images are new images: a gap on validation that chance doesn't explain is none the less for a test without one.
    """
    gap = subtract_estimates(accuracies["train"], accuracies["test"])
    val = accuracies.get("val")
    if val is None or val.value is None or _is_notable(gap):
        return "test", gap
    other = subtract_estimates(accuracies["train"], val)
    return ("val", other) if _is_notable(other) else ("test", gap)


def _is_notable(gap: Estimate) -> bool:
    return (gap.low or 0.0) > 0 and (gap.value or 0.0) >= NOTABLE_GAP


def _choose_code(train: Estimate, gap: Estimate, baseline: float, *, rose: bool) -> str:
    value, high = gap.value or 0.0, gap.high or 0.0
    # A gap comes first: a model may be poor on training and still far poorer on the test.
    if _is_notable(gap):
        return "over-fitted" if rose else "gap"
    if 1 - (train.value or 0.0) > UNDERFITTED_SHARE * (1 - baseline):
        return "under-fitted"
    if high < -NOTABLE_GAP:
        return "test-easier"
    if value < NOTABLE_GAP and high <= TOLERATED_GAP:
        return "close"
    return "too-few"


def _list_metrics(accuracies: Mapping[str, Estimate], images: Mapping[str, int]) -> str:
    listed = [
        f"{_format_points(accuracies[split].value or 0.0)}% on {images[split]:,} {name} images "
        f"({_format_interval(accuracies[split])})"
        for split, name in _NAMES.items()
        if split in accuracies
    ]
    return f"{', '.join(listed[:-1])} and {listed[-1]}"


def _explain(code: str, gap: Estimate, level: str, under_fitted: str, *, side: str) -> str:
    """Return the sentence that gives the reason of the verdict."""
    value = gap.value or 0.0
    points = f"{_format_points(abs(value))} points"
    span = f"{_format_points(gap.low or 0.0)} to {_format_points(gap.high or 0.0)}"
    if code in ("over-fitted", "gap"):
        name = _NAMES[side].capitalize()
        below = f"{name} is {points} below training ({level} interval {span}), which is statistically significant"
        if code == "over-fitted":
            return f"{below}, and the validation loss rose while the model was trained."
        return f"{below}: the model fits its training images better than images that it has not seen."
    if code == "under-fitted":
        return under_fitted
    if code == "test-easier":
        return f"Test is {points} above training (training minus test: {level} interval {span})."
    gap_text = f"Training minus test is {_format_points(value)} points"
    if code == "close":
        return f"{gap_text} ({level} interval {span}): no sign of over-fitting."
    return f"{gap_text}, but with so few images its {level} interval is wide: {span}."


def _describe_validation(
    accuracies: Mapping[str, Estimate], code: str, side: str, course: TrainingCourse
) -> Iterator[str]:
    """Yield what validation adds: its own gap, its loss while the model was trained, and whether it flatters."""
    if side == "val":
        test = subtract_estimates(accuracies["train"], accuracies["test"])
        yield (
            f"Training minus test is {_format_points(test.value or 0.0)} points: the two sets of new images disagree,"
            " so expect of other images what the lower one says."
        )
    if code == "gap" and course.rose is False:
        yield "The validation loss did not rise in the last stage: the gap is not from training for too long."
    if "val" not in accuracies:
        return
    gap = subtract_estimates(accuracies["val"], accuracies["test"])
    if _is_notable(gap):
        points = _format_points(gap.value or 0.0)
        yield f"Validation is also {points} points above test: what was selected on it looks better there than it is."


def _ends(metric: Estimate) -> tuple[float, float, float]:
    """Return low, value and high; a missing end is the value, and an end never lies on the wrong side of it."""
    value = metric.value or 0.0
    low = value if metric.low is None else min(metric.low, value)
    high = value if metric.high is None else max(metric.high, value)
    return low, value, high


def _format_interval(metric: Estimate) -> str:
    low, _, high = _ends(metric)
    return f"{_format_points(low)} to {_format_points(high)}"


def _format_points(share: float) -> str:
    # Adding 0 turns -0.0 into 0.0.
    return f"{round(100 * share, 1) + 0.0:.1f}"
