"""The worst mistakes explained: a part of evaluation.json, and pictures in the run folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imagetune.data.decode import load_picture
from imagetune.evaluation.examined import Examined
from imagetune.evaluation.looks import Look, fitted, heated, look_at
from imagetune.evaluation.mistakes import wrong_pictures
from imagetune.evaluation.occlusion import GRID, PATCH_SHARE
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.tiles import write_tile
from imagetune.model.gradients import sight_of

FOLDER = "explanations"
METHODS = ("grad_cam", "occlusion")
TILE_PIXELS = 192


def explained_mistakes(run: Examined) -> dict[str, Any] | None:
    """Return Grad-CAM and occlusion of the worst mistakes, and write them as pictures; None where there are none.

    Each wrong picture is explained for what it was taken for and for what it is.

    Returns:
        ``split``, ``cells`` of the last feature map, ``grid`` and ``patch`` of the occlusion, ``agreement`` (median
        rank correlation of both maps), and ``pictures``: ``path``, ``true``, ``predicted``, ``file`` and ``looks``,
        each with ``class``, ``probability``, ``agreement``, ``nothing_for_it`` (the methods by which no place speaks
        for the class) and the files ``grad_cam`` and ``occlusion``. Files are told relative to the run folder.
    """
    name = _tested(run)
    task = run.recipe.data.task
    if not run.recipe.evaluate.explain or task == "regression" or name not in run.splits:
        return None
    predictions = run.splits[name].predictions
    chosen = wrong_pictures(predictions)[: run.recipe.evaluate.explain]
    if not len(chosen):
        return None
    data = run.recipe.data
    images = np.stack(
        [load_picture(predictions.paths[index], data.image, max_pixels=data.max_pixels) for index in chosen]
    )
    sight = sight_of(run.model)
    targets = np.array([explained_outputs(predictions, index) for index in chosen], np.int64)
    looks = look_at(sight, images, targets)
    shutil.rmtree(run.folder / FOLDER, ignore_errors=True)
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


def explained_outputs(predictions: Predictions, index: int) -> tuple[int, int]:
    """Return which two outputs explain a wrong picture: the answer, and the truth.

    For multi_label: the label that is wrong by most, and the likeliest of the other true ones, or of all others.
    """
    if predictions.rule.task != "multi_label":
        return int(predictions.predicted[index]), int(predictions.labels[index])
    row, true = predictions.probabilities[index], predictions.targets[index] >= 0.5
    distances = np.abs(row - np.array(predictions.thresholds or 0.5))
    wrong = int(np.where(true != predictions.given[index], distances, -1.0).argmax())
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
    tile = fitted(image, TILE_PIXELS)
    # With one label, what is wrong and what is true can be the same output.
    different = looks if looks[0].target != looks[-1].target else looks[:1]
    return {
        "path": path.relative_to(run.root).as_posix() if path.is_relative_to(run.root) else str(path),
        "true": true,
        "predicted": predicted,
        "file": write_tile(tile, run.folder, f"{FOLDER}/{number:02}-picture.jpg"),
        "looks": [
            {
                "class": predictions.class_names[look.target],
                "probability": float(predictions.probabilities[index, look.target]),
                "agreement": look.agreement,
                "nothing_for_it": [name for name in METHODS if float(getattr(look, name).max()) <= 0],
                "grad_cam": _heat_tile(run, tile, look.grad_cam, f"{number:02}-{place}-grad-cam"),
                "occlusion": _heat_tile(run, tile, look.occlusion, f"{number:02}-{place}-occlusion"),
            }
            for place, look in enumerate(different, start=1)
        ],
    }


def _heat_tile(run: Examined, tile: NDArray[np.uint8], values: NDArray[np.float32], name: str) -> str:
    return write_tile(heated(tile, values), run.folder, f"{FOLDER}/{name}.jpg")
