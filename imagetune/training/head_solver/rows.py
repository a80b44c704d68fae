"""The rows that a head is solved on: images and their augmented copies, with weights and cross-validation folds."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from imagetune.data.duplicates.groups import find_components, find_equal_pairs, list_group_members
from imagetune.data.sources.labels import split_labels
from imagetune.data.splits.assignment import Unit, compute_draw
from imagetune.data.splits.folds import assign_folds
from imagetune.training.head_solver.losses import build_convex_loss, smooth_targets
from imagetune.training.head_solver.solve import FOLDS, SHRINKAGE, HeadProblem, Scaler, fit_scaler
from imagetune.training.setup.job import TrainingImages, TrainingJob, compute_draw_probabilities
from imagetune.training.setup.keras_feed import TrainingTargets
from imagetune.training.setup.stages import Objective


def build_problem(
    job: TrainingJob,
    features: NDArray[np.float32],
    *,
    objective: Objective,
    targets: TrainingTargets,
    shrinkage: float = SHRINKAGE,
) -> tuple[HeadProblem, Scaler]:
    """Return the convex problem of a job's head on scaled features, and their scaler.

    An image counts once, however many copies it has: each copy has a share of its weight. Class weights and sampling
    probabilities are weights of the images.

    Args:
        job: The training job.
        features: (c, n, d) features of the n images in c versions: as they are, then their copies.
        objective: Training objective.
        targets: Targets of the n images, neither mixed nor with a teacher.
        shrinkage: As for `fit_scaler`.
    """
    versions, count = features.shape[:2]
    train, task = job.config, objective.task
    rows = features.reshape(versions * count, -1)
    scaler = fit_scaler(rows, shrinkage=shrinkage)
    weights = np.ones(count) if targets.weights is None else targets.weights.astype(np.float64)
    if (probabilities := compute_draw_probabilities(job)) is not None:
        weights = weights * probabilities * count
    outputs = targets.targets.shape[1]
    offset = np.zeros(outputs)
    if train.loss.logit_adjustment and objective.priors is not None:
        # A class without training images has a prior of 0, which has no logarithm.
        offset = train.loss.logit_adjustment * np.log(np.maximum(objective.priors, 1e-12))
    problem = HeadProblem(
        scaler.transform(rows),
        np.tile(smooth_targets(targets.targets, train.label_smoothing, task), (versions, 1)).astype(np.float32),
        np.tile(weights / versions, versions).astype(np.float32),
        build_convex_loss(train.loss, task, outputs),
        offset.astype(np.float32),
    )
    return problem, scaler


def deal_image_folds(images: TrainingImages, *, seed: int) -> NDArray[np.int64]:
    """Return the fold (n,) of each training image: stratified, with groups and near-duplicates in one fold.

    Args:
        images: The training images, with their groups and near-duplicate groups.
        seed: Seed of the order in which images are dealt.

    Returns:
        Numbers from 0; all are 0 where the images can't be separated.
    """
    records = images.train
    alike = [images.duplicate_groups.get(record.path) for record in records]
    pairs = [
        *find_equal_pairs([record.group for record in records]),
        *find_equal_pairs(alike),
        # A table may name a file in several rows: they are one image.
        *find_equal_pairs([record.path for record in records]),
    ]
    names = _list_strata(images)
    # By content, as splits are drawn: the same images in another folder are dealt alike.
    keys = [images.hashes.get(record.path, record.path) for record in records]
    units = [
        Unit(tuple(members), Counter(names[at] for at in members), compute_draw(seed, min(keys[at] for at in members)))
        for members in list_group_members(find_components(len(records), pairs))
    ]
    folds = np.zeros(len(records), np.int64)
    for unit, fold in zip(units, assign_folds(units, min(FOLDS, len(units))), strict=True):
        folds[list(unit.members)] = fold
    return folds


def _list_strata(images: TrainingImages) -> list[str]:
    """Return the stratum of each training image: its class, the rarest of its labels, or one for all numbers."""
    data, labels = images.config, images.train_labels
    if data.task == "regression":
        return [""] * len(labels)
    if data.task != "multi_label":
        return labels
    several = [split_labels(label, data.label_separator) for label in labels]
    counts = Counter(name for names in several for name in names)
    return [min(names, key=lambda name: (counts[name], name)) if names else "" for names in several]
