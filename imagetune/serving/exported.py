"""An export in place of a run: its certificate, and its model as one that predicts with the same code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from imagetune.core.documents import name_foreign_document
from imagetune.evaluation.predict import BatchPredictor, DecisionRules, ImagePrediction, build_image_predictions
from imagetune.model.decision_rules import ConformalRule
from imagetune.model.manifest import DEFAULT_MAX_PIXELS, LoadedModel
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig
from imagetune.run_folder.plain_predict import open_model
from imagetune.serving.certificate import MANIFEST, read_export


def open_export(folder: Path) -> tuple[LoadedModel, BatchPredictor]:
    """Return an export as a model, whose Keras model is missing, and the function that predicts with its runtime.

    Args:
        folder: A folder of `imagetune export`.

    Raises:
        ModelFileError: It isn't what imagetune writes.
    """
    about = read_export(folder)
    with name_foreign_document(folder / MANIFEST, "the model's description"):
        loaded = _build_model(about)
    run = open_model(folder)
    ways = DecisionRules(sets=loaded.conformal is not None)

    def predict(names: Sequence[str], images: NDArray[np.uint8]) -> list[ImagePrediction]:
        return build_image_predictions(names, run(images), loaded, ways)

    return loaded, predict


def _build_model(about: dict[str, Any]) -> LoadedModel:
    height, width = about["size"]
    rule = about["conformal"] and ConformalRule.model_validate(about["conformal"])
    return LoadedModel(
        # Nothing that is done with an export asks for it.
        cast(Any, None),
        tuple(about["class_names"]),
        ImageSettings(height=height, width=width, resize=about["resize"], background=tuple(about["background"])),
        ModelConfig(backbone=about["backbone"]),
        DEFAULT_MAX_PIXELS,
        about["sha256"]["source"],
        task=about["task"],
        thresholds=tuple(about["thresholds"]),
        label_separator=about["separator"],
        temperature=about["temperature"],
        conformal=rule or None,
    )
