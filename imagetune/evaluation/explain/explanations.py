"""The worst mistakes explained: a part of evaluation.json, and pictures in the run folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.data.loading.decode import load_picture
from imagetune.evaluation.context import Examined
from imagetune.evaluation.errors.mistakes import worst_label, wrong_pictures
from imagetune.evaluation.explain.occlusion import GRID, PATCH_SHARE
from imagetune.evaluation.explain.saliency import Look, look_at
from imagetune.evaluation.predictions import Predictions
from imagetune.model.gradients import Sight, sight_of

METHODS = ("grad_cam", "occlusion")
TILE_PIXELS = 192


def explained_mistakes(run: Examined) -> dict[str, Any] | None:
    """Return Grad-CAM and occlusion of the worst mistakes, and write them as pictures; None where there are none.

    Each wrong picture is explained for what it was taken for and for what it is; of a number it is told what makes it
    higher and what makes it lower, first what makes the answer err as it does.

    Returns:
        ``split``, ``cells`` of the last feature map, ``grid`` and ``patch`` of the occlusion, ``agreement`` (median
        rank correlation of both maps), and ``pictures``: ``path``, ``true``, ``predicted``, ``file`` and ``looks``,
        each with ``class``, ``probability`` (None of numbers), ``agreement``, ``nothing_for_it`` (the methods by which
        no place speaks for the class) and the files ``grad_cam`` and ``occlusion``. Files are told relative to the run
        folder.
    """
    name = _tested(run)
    if not run.evaluate.explain or name not in run.splits:
        return None
    predictions = run.splits[name].predictions
    chosen = wrong_pictures(predictions)[: run.evaluate.explain]
    if not len(chosen):
        return None
    data = run.data
    images = np.stack(
        [load_picture(predictions.paths[index], data.image, max_pixels=data.max_pixels) for index in chosen]
    )
    sight = sight_of(run.model)
    looks = _looks(sight, images, predictions, chosen)
    # An earlier evaluation may have explained more mistakes, whose images would stay behind.
    run.tiles.clear(run_files.EXPLANATIONS)
    texts = list(predictions.texts())
    pictures = [
        _written(run, index, texts[index], image, found, number)
        for number, (index, image, found) in enumerate(zip(chosen.tolist(), images, looks, strict=True), start=1)
    ]
    known = [look["agreement"] for picture in pictures for look in picture["looks"] if look["agreement"] is not None]
    return {
        "split": name,
        "cells": list(sight.features.output_shape[1:3]),
        "grid": GRID,
        "patch": PATCH_SHARE,
        "agreement": float(np.median(known)) if known else None,
        "pictures": pictures,
    }


def _tested(run: Examined) -> str:
    return "test" if "test" in run.splits else "val"


def _looks(
    sight: Sight, images: NDArray[np.uint8], predictions: Predictions, chosen: NDArray[np.int64]
) -> list[tuple[Look, ...]]:
    """Return a look for the answer and one for the truth of each chosen picture."""
    if predictions.rule.task != "regression":
        targets = np.array([explained_outputs(predictions, index) for index in chosen], np.int64)
        return look_at(sight, images, targets)
    found = look_at(sight, images, np.zeros((len(chosen), 1), np.int64))
    high = (predictions.probabilities > predictions.targets)[chosen, 0]
    return [
        (look, look.opposite) if too_high else (look.opposite, look)
        for (look,), too_high in zip(found, high.tolist(), strict=True)
    ]


def look_name(look: Look, predictions: Predictions) -> str:
    """Return what a look is for: a class; of a number that it is higher or lower."""
    name = predictions.class_names[look.target]
    if predictions.rule.task != "regression":
        return name
    return f"lower {name}" if look.against else f"higher {name}"


def explained_outputs(predictions: Predictions, index: int) -> tuple[int, int]:
    """Return which two outputs explain a wrong picture: the answer, and the truth.

    For multi_label: the label that is wrong by most, and the likeliest of the other true ones, or of all others.
    """
    if predictions.rule.task != "multi_label":
        return int(predictions.predicted[index]), int(predictions.labels[index])
    row, true = predictions.probabilities[index], predictions.targets[index] >= 0.5
    wrong = worst_label(predictions, index)
    others = true if true.any() else np.ones_like(true)
    others = others & (np.arange(len(row)) != wrong)
    return wrong, int(np.where(others, row, -1.0).argmax()) if others.any() else wrong


def _written(
    run: Examined, index: int, texts: tuple[str, str], image: NDArray[np.uint8], looks: Sequence[Look], number: int
) -> dict[str, Any]:
    """Write the tiles of a picture and return its entry."""
    predictions = run.splits[_tested(run)].predictions
    true, predicted = (predictions.rule.told(text) for text in texts)
    path = Path(predictions.paths[index])
    # With one label, what is wrong and what is true can be the same output.
    alike = looks[0].target == looks[-1].target and looks[0].against == looks[-1].against
    numbers = predictions.rule.task == "regression"
    return {
        "path": path.relative_to(run.root).as_posix() if path.is_relative_to(run.root) else str(path),
        "true": true,
        "predicted": predicted,
        "file": run.tiles.write(image, f"{run_files.EXPLANATIONS}/{number:02}-picture.jpg", pixels=TILE_PIXELS),
        "looks": [
            {
                "class": look_name(look, predictions),
                "probability": None if numbers else float(predictions.probabilities[index, look.target]),
                "agreement": look.agreement,
                "nothing_for_it": [name for name in METHODS if float(getattr(look, name).max()) <= 0],
                "grad_cam": _heat_tile(run, image, look.grad_cam, f"{number:02}-{place}-grad-cam"),
                "occlusion": _heat_tile(run, image, look.occlusion, f"{number:02}-{place}-occlusion"),
            }
            for place, look in enumerate(looks[:1] if alike else looks, start=1)
        ],
    }


def _heat_tile(run: Examined, image: NDArray[np.uint8], values: NDArray[np.float32], name: str) -> str:
    return run.tiles.write(image, f"{run_files.EXPLANATIONS}/{name}.jpg", pixels=TILE_PIXELS, heat=values)
