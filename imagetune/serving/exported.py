"""An export in place of a run: its certificate, and its model, which predicts with the same code without Keras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from imagetune.core.documents import name_foreign_document
from imagetune.core.quiet import hide_import_messages
from imagetune.evaluation.image_predictions import (
    BatchPredictor,
    DecisionRules,
    ImagePrediction,
    build_image_predictions,
)
from imagetune.model.decision_rules import ConformalRule
from imagetune.model.loaded import LoadedModel
from imagetune.model.out_of_distribution import Detector, OutOfDistribution, read_detector
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig
from imagetune.run_folder.plain_predict import MAX_PIXELS, open_runtime
from imagetune.serving.certificate import MANIFEST, read_export


def open_export(folder: Path, *, threads: int) -> tuple[LoadedModel, BatchPredictor]:
    """Return an export as a model, whose Keras model is missing, and the function that predicts with its runtime.

    Args:
        folder: A folder of `imagetune export`.
        threads: Number of threads that its runtime computes with.

    Raises:
        ModelFileError: It isn't what imagetune writes.
    """
    about = read_export(folder)
    # LiteRT writes a note to the descriptor of standard error when it first computes.
    with hide_import_messages():
        run = open_runtime(folder, threads)
        tried = run(np.zeros((1, *about["size"], 3), np.uint8))
    with name_foreign_document(folder / MANIFEST, "the model's description"):
        loaded = _build_model(about, _open_detector(folder, about, tried))
    ways = DecisionRules(sets=loaded.conformal is not None)

    def predict(names: Sequence[str], images: NDArray[np.uint8]) -> list[ImagePrediction]:
        outputs = run(images)
        scores = None if loaded.detector is None else loaded.detector.scores(outputs["evidence"], loaded.task)
        return build_image_predictions(names, outputs["probabilities"], loaded, ways, scores=scores)

    return loaded, predict


def _open_detector(folder: Path, about: dict[str, Any], outputs: dict[str, NDArray[np.float32]]) -> Detector | None:
    """Return the out-of-distribution detector; None where the run has none, or its scores did not survive the export.

    Raises:
        ModelFileError: Its statistics are missing, corrupted or replaced.
        KeyError: The model has no evidence for it.
    """
    if not about["out_of_distribution"]:
        return None
    width = outputs["evidence"][0].size
    rule = OutOfDistribution.model_validate(about["out_of_distribution"])
    return read_detector(folder, rule, width=width, outputs=len(about["class_names"]))


def _build_model(about: dict[str, Any], detector: Detector | None) -> LoadedModel:
    height, width = about["size"]
    rule = about["conformal"] and ConformalRule.model_validate(about["conformal"])
    return LoadedModel(
        # Nothing that is done with an export asks for it.
        cast(Any, None),
        tuple(about["class_names"]),
        ImageSettings(height=height, width=width, resize=about["resize"], background=tuple(about["background"])),
        ModelConfig(backbone=about["backbone"]),
        MAX_PIXELS,
        about["sha256"]["source"],
        task=about["task"],
        thresholds=tuple(about["thresholds"]),
        label_separator=about["separator"],
        temperature=about["temperature"],
        conformal=rule or None,
        detector=detector,
    )
