"""Comparison of an export's predictions with those of the Keras model, and whether it may be used in its place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from imagetune.core.multiple_testing import adjust_p_values
from imagetune.core.text import format_count, format_list
from imagetune.evaluation.comparison.metrics import prepare_predictions
from imagetune.evaluation.predictions import Predictions, make_relative_path
from imagetune.evaluation.statistics.paired_tests import compute_mcnemar_p_value
from imagetune.evaluation.statistics.proportions import compute_two_sided_quantile, compute_wilson_interval

Bools = NDArray[np.bool_]
Verdict = Literal["equal", "non-inferior", "inferior", "unproven"]
EQUAL_PROBABILITIES = 0.02
"""Largest difference of any probability at which two models count as equal; or else the next two together."""
EQUAL_CONFIDENCES = 0.005
"""Largest mean difference of the probability of the predicted class. Pillow and OpenCV enlarge small transparent images
so that some of their pixels differ by a level, which moved one probability by 0.03 (measured)."""
EQUAL_AT_MOST = 0.1
"""Largest difference of any probability beside it."""
EQUAL_LABELS = 0.01
"""Share of images whose labels may differ then, and always one image: two classes that are equally likely to the model
change places with the last digit of a pixel."""
MAX_MEAN_DIFFERENCE = 0.05
"""Largest mean difference of the probability of the predicted class. Beyond it the labels may stay, but the model's
calibration, thresholds and prediction sets don't hold for the export, as with a softmax that is applied twice."""
CONFIDENCE = 0.95


@dataclass(frozen=True)
class ClassParity:
    """How often both models are right on the images of one class.

    Attributes:
        name: The class.
        images: Number of its images.
        keras: Share on which the Keras model is right.
        exported: Share on which the export is right.
        p_value: McNemar's exact test, corrected for the number of classes (Holm).
    """

    name: str
    images: int
    keras: float
    exported: float
    p_value: float


@dataclass(frozen=True)
class Parity:
    """How an export's predictions differ from the Keras model's on the same images.

    Attributes:
        images: Number of images that both have predicted.
        agreement: Share of images with the same label; for regression, whose numbers differ by less than 1% of the true
            numbers' standard deviation.
        max_difference: Largest difference of a probability; for regression in standard deviations of the true numbers.
        mean_difference: Mean of the absolute differences.
        confidence_difference: Mean of the absolute differences of the probability of the Keras model's likeliest class;
            for regression as ``mean_difference``.
        keras: Accuracy of the Keras model; for several labels the share of images with exactly the right ones; for
            regression 1 minus the mean absolute error in standard deviations.
        exported: The same of the export.
        difference: The export's minus that of Keras, with the ends of its interval of 95%.
        low: Lower end.
        high: Upper end.
        classes: Of one class of several, each class with images.
        changed: (n,) which images have another label.
        verdict: ``equal`` where probabilities and labels hardly differ; ``non-inferior`` where
            the lower end is no worse than the tolerated drop; ``inferior`` where the export is worse by more than
            chance; else ``unproven``.
        reasons: Why it is refused; empty where it isn't.
    """

    images: int
    agreement: float
    max_difference: float
    mean_difference: float
    confidence_difference: float
    keras: float
    exported: float
    difference: float
    low: float
    high: float
    classes: tuple[ClassParity, ...]
    changed: Bools
    verdict: Verdict
    reasons: tuple[str, ...]


def compare_outputs(reference: Predictions, outputs: NDArray[np.float64], *, max_drop: float) -> Parity:
    """Return how an export's outputs differ from a model's predictions for the same labelled images.

    Args:
        reference: The Keras model's predictions for n images.
        outputs: (n, k) the export's.
        max_drop: The largest drop of the accuracy that is tolerated, in percentage points.

    Raises:
        ValueError: There are no images.
    """
    if not len(reference.paths):
        raise ValueError("no images to compare")
    exported = replace(reference, probabilities=np.asarray(outputs, np.float64))
    regression = reference.rule.task == "regression"
    scale = max(float(np.std(reference.targets)), 1e-12) if regression else 1.0
    apart = np.abs(exported.probabilities - reference.probabilities) / scale
    if regression:
        changed = apart[:, 0] > 0.01
        # A number is neither right nor wrong: what is compared is how far it is off, in standard deviations.
        errors = [1 - np.abs(one.probabilities - one.targets)[:, 0] / scale for one in (reference, exported)]
        difference, low, high = _compare_means(errors[1] - errors[0])
        keras, found = float(errors[0].mean()), float(errors[1].mean())
        classes: tuple[ClassParity, ...] = ()
    else:
        changed = np.array([one != two for (_, one), (_, two) in zip(reference.texts(), exported.texts(), strict=True)])
        before, after = (prepare_predictions(one).right for one in (reference, exported))
        difference, low, high = compute_paired_interval(before, after, changed)
        keras, found = float(before.mean()), float(after.mean())
        classes = tuple(_compare_classes(reference, before, after))
    best = reference.probabilities.argmax(axis=1)
    confidence = float(apart[np.arange(len(apart)), best].mean())
    reasons = tuple(_list_reasons(confidence, classes, -100 * low, max_drop, len(changed)))
    verdict = _judge(float(apart.max()), changed, confidence, classes, high, reasons)
    return Parity(
        images=len(changed),
        agreement=float(1 - changed.mean()),
        max_difference=float(apart.max()),
        mean_difference=float(apart.mean()),
        confidence_difference=confidence,
        keras=keras,
        exported=found,
        difference=difference,
        low=low,
        high=high,
        classes=classes,
        changed=changed,
        verdict=verdict,
        reasons=() if verdict == "equal" else reasons,
    )


def compute_paired_interval(before: Bools, after: Bools, changed: Bools) -> tuple[float, float, float]:
    """Return the difference of two shares of the same images, after minus before, and the ends of its interval of 95%.

    Newcombe's interval for paired proportions (Statistics in Medicine 17, 1998, 2635-2650, method 10). Where no label
    has changed, that interval would still reach from the difference of two intervals; the share of images that could
    change, by Wilson's interval of none of n, is then the tighter bound to both sides.

    Args:
        before: (n,) whether the first model is right.
        after: (n,) whether the second is.
        changed: (n,) whether their predictions differ.
    """
    images = len(before)
    quantile = compute_two_sided_quantile(CONFIDENCE)
    first, second = float(before.mean()), float(after.mean())
    difference = second - first
    if not changed.any():
        reach = float(compute_wilson_interval(0.0, images, quantile)[1])
        return 0.0, -reach, reach
    ends = [compute_wilson_interval(share, images, quantile) for share in (first, second)]
    down = np.array([first - ends[0][0], second - ends[1][0]])
    up = np.array([ends[0][1] - first, ends[1][1] - second])
    correlation = _compute_correlation(before, after)
    low = np.sqrt(max(down[1] ** 2 - 2 * correlation * down[1] * up[0] + up[0] ** 2, 0.0))
    high = np.sqrt(max(up[1] ** 2 - 2 * correlation * up[1] * down[0] + down[0] ** 2, 0.0))
    return difference, max(difference - float(low), -1.0), min(difference + float(high), 1.0)


def _compute_correlation(before: Bools, after: Bools) -> float:
    """Return Newcombe's phi of two rows of truth values, with his correction towards 0 for positive correlations."""
    both, neither = int((before & after).sum()), int((~before & ~after).sum())
    only_before, only_after = int((before & ~after).sum()), int((~before & after).sum())
    sums = (both + only_before) * (only_after + neither) * (both + only_after) * (only_before + neither)
    if not sums:
        return 0.0
    product = both * neither - only_before * only_after
    corrected = max(product - len(before) / 2, 0) if product > 0 else product
    return float(corrected / np.sqrt(float(sums)))


def _compare_means(differences: NDArray[np.float64]) -> tuple[float, float, float]:
    mean = float(differences.mean())
    if len(differences) < 2:
        return mean, -1.0, 1.0
    reach = compute_two_sided_quantile(CONFIDENCE, len(differences)) * float(differences.std(ddof=1))
    reach /= float(np.sqrt(len(differences)))
    return mean, mean - reach, mean + reach


def _compare_classes(reference: Predictions, before: Bools, after: Bools) -> Iterator[ClassParity]:
    if reference.rule.task == "multi_label":
        return
    members = [(name, reference.labels == index) for index, name in enumerate(reference.class_names)]
    members = [(name, chosen) for name, chosen in members if chosen.any()]
    p_values = adjust_p_values(
        [
            compute_mcnemar_p_value(int((before & ~after & chosen).sum()), int((~before & after & chosen).sum()))
            for _, chosen in members
        ]
    )
    for (name, chosen), p_value in zip(members, p_values, strict=True):
        yield ClassParity(name, int(chosen.sum()), float(before[chosen].mean()), float(after[chosen].mean()), p_value)


def _list_reasons(
    confidence: float, classes: tuple[ClassParity, ...], drop: float, max_drop: float, images: int
) -> Iterator[str]:
    """Yield why an export is refused."""
    if confidence > MAX_MEAN_DIFFERENCE:
        yield f"its probabilities differ by {confidence:.2g} on average, and {MAX_MEAN_DIFFERENCE:g} are tolerated"
    if worse := _list_worse(classes):
        yield f"it is worse than the Keras model on the images of {format_list(worse)} by more than chance"
    if drop > max_drop:
        shown = f"{format_count(images, 'image')} can't rule out a drop of {drop:.1f} percentage points"
        yield f"{shown}, and {max_drop:g} are tolerated"


def _list_worse(classes: tuple[ClassParity, ...]) -> list[str]:
    return [one.name for one in classes if one.exported < one.keras and one.p_value < 1 - CONFIDENCE]


def _judge(
    apart: float,
    changed: Bools,
    confidence: float,
    classes: tuple[ClassParity, ...],
    high: float,
    reasons: tuple[str, ...],
) -> Verdict:
    near = apart <= EQUAL_PROBABILITIES or (confidence <= EQUAL_CONFIDENCES and apart <= EQUAL_AT_MOST)
    if near and changed.sum() <= max(1, EQUAL_LABELS * len(changed)):
        return "equal"
    if not reasons:
        return "non-inferior"
    worse = confidence > MAX_MEAN_DIFFERENCE or _list_worse(classes) or high < 0
    return "inferior" if worse else "unproven"


def build_parity_document(
    parity: Parity, reference: Predictions, outputs: NDArray[np.float64], *, root: Path
) -> dict[str, Any]:
    """Return a comparison as JSON values: the fields of `Parity`, each class, and each image whose label changed."""
    exported = replace(reference, probabilities=outputs)
    rows = zip(reference.paths, reference.texts(), exported.texts(), parity.changed, strict=True)
    return {
        "images": parity.images,
        "label_agreement": parity.agreement,
        "max_difference": parity.max_difference,
        "mean_difference": parity.mean_difference,
        "confidence_difference": parity.confidence_difference,
        "accuracy": {
            "keras": parity.keras,
            "exported": parity.exported,
            "difference": parity.difference,
            "low": parity.low,
            "high": parity.high,
            "confidence": CONFIDENCE,
        },
        "classes": [asdict(one) for one in parity.classes],
        "changed": [
            {"path": make_relative_path(path, root), "label": label, "keras": keras, "exported": found}
            for path, (label, keras), (_, found), changed in rows
            if changed
        ],
        "verdict": parity.verdict,
        "reasons": list(parity.reasons),
    }
