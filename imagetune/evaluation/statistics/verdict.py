"""What the gap between training, validation and test means, in words.

The gap is a difference of two accuracies, for multi_label of two mean F1, for regression of two R squared. Its interval
comes from the two intervals (MOVER: Newcombe, Statistics in Medicine 17, 1998; Zou and Donner, Statistics in Medicine
27, 2008), so that chance is not predicted as over-fitting.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import hypot

from imagetune.evaluation.statistics.intervals import Estimate

# A gap of 5 points is what people act on; a smaller one is everyday, however sure it is.
NOTABLE_GAP = 0.05
# "Close" is only said when a gap twice as large is ruled out.
TOLERATED_GAP = 0.10
# A model that leaves more than half of the mistakes of always naming the largest class has not learned its images.
UNDERFITTED_SHARE = 0.5

# By the metric that the gap is one of: see `imagetune.recipe.metrics.TaskMetrics.verdict`.
_SUBJECTS: Mapping[str, tuple[str, str, str]] = {
    "accuracy": ("The model is right on", "of", "images"),
    "f1": ("The labels' mean F1 is", "on", "images"),
    "r2": ("R squared is", "on", "images"),
}
_UNDERFITTED: Mapping[str, str] = {
    "accuracy": (
        "Always naming the largest class would be right on {baseline} of the training images; the model leaves more "
        "than half of those mistakes, even on images that it learned from."
    ),
    "f1": (
        "Giving every image every label would reach {baseline}; the model comes less than half of the way from there "
        "to 100%, even on images that it learned from."
    ),
    "r2": (
        "Always predicting the mean would reach {baseline}; the model comes less than half of the way from there to "
        "100%, even on images that it learned from."
    ),
}
_NAMES = {"train": "training", "val": "validation", "test": "test"}
_ADVICE = {
    "over-fitted": (
        "More images help most; then stronger augmentation, more dropout or weight decay, fewer unfrozen blocks, or "
        "early stopping."
    ),
    "under-fitted": (
        "Train longer, unfreeze more blocks, raise the learning rate, or take a larger backbone or larger images."
    ),
    "close": "What limits the test metrics is not over-fitting; look at the worst mistakes and the labels.",
    "too-few": "Put more images into the test split before trusting a comparison.",
    "test-easier": (
        "That is unusual: look for test images that are easier than the others, or nearly those of training."
    ),
}
_TITLES = {
    "over-fitted": "Over-fitted",
    "under-fitted": "Under-fitted",
    "close": "Training and test are close",
    "too-few": "Too few test images to tell",
    "test-easier": "Test is easier than training",
}


def judge(
    accuracies: Mapping[str, Estimate],
    images: Mapping[str, int],
    *,
    baseline: float,
    confidence: float,
    measure: str = "accuracy",
    resolution: str = "",
) -> dict[str, str] | None:
    """Say what the gap between the splits means.

    Args:
        accuracies: Accuracy with interval by split: train, test, and val where there is one; or what ``measure`` says.
        images: Number of images by split.
        baseline: Accuracy of always naming the largest class of the training images; or what a prediction that looks at
            no image reaches by the measure.
        confidence: Coverage of the intervals.
        measure: Which metric it is; 1 is the best of each.
        resolution: A sentence on what the test can't tell apart, where it is too small.

    Returns:
        ``code`` (over-fitted, under-fitted, close, too-few or test-easier), ``title``, ``text`` with the metrics, and
        ``advice``; None without both training and test metrics.
    """
    if "train" not in accuracies or "test" not in accuracies:
        return None
    if accuracies["train"].value is None or accuracies["test"].value is None:
        return None
    train, test = accuracies["train"], accuracies["test"]
    gap = difference(train, test)
    code = _code(train, gap, baseline)
    told = _metrics(accuracies, images, confidence, measure)
    sentences = [told, _meaning(code, gap, baseline, measure), *_validation(accuracies)]
    sentences += [resolution] if resolution else []
    return {"code": code, "title": _TITLES[code], "text": " ".join(sentences), "advice": _ADVICE[code]}


def difference(first: Estimate, second: Estimate) -> Estimate:
    """Return the first metric minus the second, with the interval that follows from theirs."""
    one, other = _ends(first), _ends(second)
    value = one[1] - other[1]
    low = value - hypot(one[1] - one[0], other[2] - other[1])
    high = value + hypot(one[2] - one[1], other[1] - other[0])
    return Estimate(value, low, high, method="mover")


def _code(train: Estimate, gap: Estimate, baseline: float) -> str:
    value, low, high = gap.value or 0.0, gap.low or 0.0, gap.high or 0.0
    if low > 0 and value >= NOTABLE_GAP:
        return "over-fitted"
    if 1 - (train.value or 0.0) > UNDERFITTED_SHARE * (1 - baseline):
        return "under-fitted"
    if high < -NOTABLE_GAP:
        return "test-easier"
    if value < NOTABLE_GAP and high <= TOLERATED_GAP:
        return "close"
    return "too-few"


def _metrics(accuracies: Mapping[str, Estimate], images: Mapping[str, int], confidence: float, measure: str) -> str:
    subject, of, things = _SUBJECTS[measure]
    told = [
        f"{_percent(accuracies[split])} {of} {images[split]:,} {name} {things} ({_range(accuracies[split])})"
        for split, name in _NAMES.items()
        if split in accuracies
    ]
    level = f"in brackets: {100 * confidence:g}% intervals"
    return f"{subject} {', '.join(told[:-1])} and {told[-1]}; {level}."


def _meaning(code: str, gap: Estimate, baseline: float, measure: str) -> str:
    value = gap.value or 0.0
    points = f"{_points(abs(value))} points"
    span = f"{_points(gap.low or 0.0)} to {_points(gap.high or 0.0)}"
    if code == "over-fitted":
        return (
            f"Test is {points} below training (interval {span}), which is more than chance: the model knows its "
            f"training images better than what they share with others."
        )
    if code == "under-fitted":
        return _UNDERFITTED[measure].format(baseline=f"{100 * baseline:.1f}%")
    if code == "test-easier":
        return f"Test is {points} above training (training minus test: interval {span})."
    if code == "close":
        return f"Training minus test is {_points(value)} points (interval {span}): no sign of over-fitting."
    return f"Training minus test is {_points(value)} points, but with so few images it may be anything from {span}."


def _validation(accuracies: Mapping[str, Estimate]) -> Iterator[str]:
    """Say so where choosing by validation flattered it."""
    if "val" not in accuracies:
        return
    gap = difference(accuracies["val"], accuracies["test"])
    if (gap.low or 0.0) > 0 and (gap.value or 0.0) >= NOTABLE_GAP:
        points = _points(gap.value or 0.0)
        yield f"Validation is {points} points above test as well: what was chosen by it looks better there than it is."


def _ends(metric: Estimate) -> tuple[float, float, float]:
    """Return low, value and high; a missing end is the value, and an end never lies on the wrong side of it."""
    value = metric.value or 0.0
    low = value if metric.low is None else min(metric.low, value)
    high = value if metric.high is None else max(metric.high, value)
    return low, value, high


def _percent(metric: Estimate) -> str:
    return f"{_points(metric.value or 0.0)}%"


def _range(metric: Estimate) -> str:
    low, _, high = _ends(metric)
    return f"{_points(low)} to {_points(high)}"


def _points(share: float) -> str:
    # Adding 0 makes -0 plain.
    return f"{round(100 * share, 1) + 0.0:.1f}"
