"""Class imbalance: how the recipe weights classes of unequal size, and recall and precision of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.objectives.class_weights import class_weights, compute_sampling_shares

# A random split alone makes small classes differ by half: below this ratio of largest to smallest, sizes say little.
NOTABLE_RATIO = 2.0
# With fewer classes, even a perfect rank correlation is not significant at 5%.
MIN_CLASSES = 5
SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class ClassShare:
    """The share of one class in the data, in an epoch and in the loss, with its recall and precision.

    Attributes:
        name: Class name.
        images: Training images.
        share: Their share of all training images.
        sampled: Share of the images that an epoch shows.
        weight: Weight of each of them in the loss, relative to an image of average weight.
        effective: Share of the loss that the class has: ``sampled`` times ``weight``, summing to 1.
        shift: What the logit adjustment adds to the class's logit while training; 0 without it.
        recall: Estimate of evaluation.json: value, low, high.
        precision: The same.
    """

    name: str
    images: int
    share: float
    sampled: float
    weight: float
    effective: float
    shift: float
    recall: Mapping[str, Any]
    precision: Mapping[str, Any]


@dataclass(frozen=True)
class ClassBalance:
    """The class balance of a run: all classes, the largest first.

    Attributes:
        classes: One row per class.
        measures: The recipe's keys against imbalance with their values; empty where it sets none.
        correlation: A sentence on whether rare classes are recalled worse.
    """

    classes: tuple[ClassShare, ...]
    measures: tuple[str, ...]
    correlation: str


def compute_class_balance(
    config: TrainConfig, counts: Mapping[str, int], per_class: Sequence[Mapping[str, Any]]
) -> ClassBalance | None:
    """Return the class balance of a run; None where sizes are nearly equal and the recipe treats classes alike.

    Args:
        config: ``class_weights``, ``sampling`` and ``loss.logit_adjustment`` are used.
        counts: Training images of each class.
        per_class: The classes of a split in evaluation.json, in the order of the model's outputs.
    """
    names = [str(row["class"]) for row in per_class]
    images = np.array([counts.get(name, 0) for name in names], np.int64)
    measures = tuple(_list_measures(config))
    # A class without training images has no weight, and its logit adjustment would be infinite.
    if not images.all() or (not measures and images.max() < NOTABLE_RATIO * images.min()):
        return None
    share = images / images.sum()
    sampled = compute_sampling_shares(config.sampling, images)
    weights = class_weights(config.class_weights, images, names)
    effective = sampled * (np.ones(len(names)) if weights is None else weights)
    weight = (effective / sampled) / effective.sum()
    shift = config.loss.logit_adjustment * np.log(share)
    rows = [
        ClassShare(
            name=names[index],
            images=int(images[index]),
            share=float(share[index]),
            sampled=float(sampled[index]),
            weight=float(weight[index]),
            effective=float(effective[index] / effective.sum()),
            shift=float(shift[index]),
            recall=per_class[index]["metrics"]["recall"],
            precision=per_class[index]["metrics"]["precision"],
        )
        for index in np.argsort(-images, kind="stable")
    ]
    return ClassBalance(tuple(rows), measures, _describe_correlation(rows))


def _list_measures(config: TrainConfig) -> list[str]:
    """Return the recipe's keys against imbalance, as far as they do something."""
    weights = config.class_weights
    measures = [] if weights == "none" else [f"class_weights: {weights if isinstance(weights, str) else 'by name'}"]
    measures += [] if config.sampling == "natural" else [f"sampling: {config.sampling}"]
    adjustment = config.loss.logit_adjustment
    return measures + ([f"loss.logit_adjustment: {adjustment:g}"] if adjustment else [])


def _describe_correlation(rows: Sequence[ClassShare]) -> str:
    """Describe Spearman's rank correlation of recall and number of training images."""
    tested = [row for row in rows if row.recall.get("value") is not None]
    images = np.array([row.images for row in tested], np.float64)
    recalls = np.array([row.recall["value"] for row in tested], np.float64)
    if len(tested) < MIN_CLASSES:
        return f"{len(tested)} classes are too few to test whether rare classes have lower recall."
    if _is_constant(images) or _is_constant(recalls):
        return (
            "All classes have the same recall."
            if _is_constant(recalls)
            else "All classes have equally many training images."
        )
    found = spearmanr(images, recalls)
    details = f"rank correlation of training images and recall {found.statistic:.2f}, p = {found.pvalue:.2g}"
    if found.pvalue >= SIGNIFICANCE:
        return f"Rare classes do not have significantly lower recall ({details})."
    return f"Rare classes have significantly {'lower' if found.statistic > 0 else 'higher'} recall ({details})."


def _is_constant(values: NDArray[np.float64]) -> bool:
    return bool((values == values[0]).all())
