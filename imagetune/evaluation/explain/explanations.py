"""Analysis ``explanations``: saliency maps (Grad-CAM and occlusion) of the worst mistakes, as JSON and as images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.data.loading.decode import load_image
from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.errors.mistakes import find_mistakes, find_worst_label
from imagetune.evaluation.explain.occlusion import GRID, PATCH_SHARE
from imagetune.evaluation.explain.saliency import SaliencyMap, compute_saliency
from imagetune.evaluation.predictions import Predictions, make_relative_path
from imagetune.model.gradients import SaliencyModel, split_for_saliency

METHODS = ("grad_cam", "occlusion")
TILE_PIXELS = 192


def explain_mistakes(run: EvaluationContext) -> dict[str, Any] | None:
    """Return Grad-CAM and occlusion maps of the worst mistakes, and write them as images; None where there are none.

    Each wrong image is explained for its predicted class and for its true class. For regression one map shows what
    raises the number and one what lowers it, first the one in the direction of the error.

    Returns:
        ``split``, ``cells`` of the last feature map, ``grid`` and ``patch`` of the occlusion, ``agreement`` (median
        rank correlation of both maps), and ``images``: ``path``, ``true``, ``predicted``, ``file`` and ``saliency``, a
        list with ``class``, ``probability`` (None for regression), ``agreement``, ``nothing_for_it`` (the methods by
        which no place supports the class) and the files ``grad_cam`` and ``occlusion``. Files are relative to the run
        folder.
    """
    name = _choose_split(run)
    if not run.evaluate.explain or name not in run.splits:
        return None
    predictions = run.splits[name].predictions
    chosen = find_mistakes(predictions)[: run.evaluate.explain]
    if not len(chosen):
        return None
    data = run.data
    images = np.stack(
        [load_image(predictions.paths[index], data.image, max_pixels=data.max_pixels) for index in chosen]
    )
    split = split_for_saliency(run.model)
    saliency_maps = _compute_saliency_maps(split, images, predictions, chosen)
    # An earlier evaluation may have explained more mistakes, whose images would stay behind.
    run.tiles.clear(run_files.EXPLANATIONS)
    texts = list(predictions.texts())
    written = [
        _write_image(run, index, texts[index], image, found, number)
        for number, (index, image, found) in enumerate(
            zip(chosen.tolist(), images, saliency_maps, strict=True), start=1
        )
    ]
    known = [
        saliency["agreement"]
        for image in written
        for saliency in image["saliency"]
        if saliency["agreement"] is not None
    ]
    return {
        "split": name,
        "cells": list(split.cells),
        "grid": GRID,
        "patch": PATCH_SHARE,
        "agreement": float(np.median(known)) if known else None,
        "images": written,
    }


def _choose_split(run: EvaluationContext) -> str:
    return "test" if "test" in run.splits else "val"


def _compute_saliency_maps(
    split: SaliencyModel, images: NDArray[np.uint8], predictions: Predictions, chosen: NDArray[np.int64]
) -> list[tuple[SaliencyMap, ...]]:
    """Return two saliency maps of each chosen image: for its predicted and for its true class."""
    if predictions.rule.task != "regression":
        targets = np.array([choose_explained_outputs(predictions, index) for index in chosen], np.int64)
        return compute_saliency(split, images, targets)
    # A number has one output, so its second map is the first with the opposite sign.
    found = compute_saliency(split, images, np.zeros((len(chosen), 1), np.int64))
    high = (predictions.probabilities > predictions.targets)[chosen, 0]
    return [
        (saliency, saliency.opposite) if too_high else (saliency.opposite, saliency)
        for (saliency,), too_high in zip(found, high.tolist(), strict=True)
    ]


def name_saliency(saliency: SaliencyMap, predictions: Predictions) -> str:
    """Return the name of what a saliency map explains: a class, or a higher or lower number."""
    name = predictions.class_names[saliency.target]
    if predictions.rule.task != "regression":
        return name
    return f"lower {name}" if saliency.against else f"higher {name}"


def choose_explained_outputs(predictions: Predictions, index: int) -> tuple[int, int]:
    """Return the two outputs that explain a wrong image: the predicted class and the true class.

    For multi_label: the wrong label furthest from its threshold, and the most probable other true label, or of all
    other labels where none is true.
    """
    if predictions.rule.task != "multi_label":
        return int(predictions.predicted[index]), int(predictions.labels[index])
    row, true = predictions.probabilities[index], predictions.targets[index] >= 0.5
    wrong = find_worst_label(predictions, index)
    others = true if true.any() else np.ones_like(true)
    others = others & (np.arange(len(row)) != wrong)
    return wrong, int(np.where(others, row, -1.0).argmax()) if others.any() else wrong


def _write_image(
    run: EvaluationContext,
    index: int,
    texts: tuple[str, str],
    image: NDArray[np.uint8],
    saliency_maps: Sequence[SaliencyMap],
    number: int,
) -> dict[str, Any]:
    """Write the image and its heat maps into the run folder, and return its JSON value."""
    predictions = run.splits[_choose_split(run)].predictions
    true, predicted = (predictions.rule.describe(text) for text in texts)
    # With one label, what is wrong and what is true can be the same output.
    alike = (
        saliency_maps[0].target == saliency_maps[-1].target and saliency_maps[0].against == saliency_maps[-1].against
    )
    numbers = predictions.rule.task == "regression"
    return {
        "path": make_relative_path(predictions.paths[index], run.root),
        "true": true,
        "predicted": predicted,
        "file": run.tiles.write(image, f"{run_files.EXPLANATIONS}/{number:02}-image.jpg", pixels=TILE_PIXELS),
        "saliency": [
            {
                "class": name_saliency(saliency, predictions),
                "probability": None if numbers else float(predictions.probabilities[index, saliency.target]),
                "agreement": saliency.agreement,
                "nothing_for_it": [name for name in METHODS if float(getattr(saliency, name).max()) <= 0],
                "grad_cam": _write_heat(run, image, saliency.grad_cam, f"{number:02}-{place}-grad-cam"),
                "occlusion": _write_heat(run, image, saliency.occlusion, f"{number:02}-{place}-occlusion"),
            }
            for place, saliency in enumerate(saliency_maps[:1] if alike else saliency_maps, start=1)
        ],
    }


def _write_heat(run: EvaluationContext, image: NDArray[np.uint8], values: NDArray[np.float32], name: str) -> str:
    return run.tiles.write(image, f"{run_files.EXPLANATIONS}/{name}.jpg", pixels=TILE_PIXELS, heat=values)
