"""The model within its process: from the bytes of image files to the predictions that are answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from imagetune.core.quiet import quiet_start
from imagetune.data.loading.decode import load_image_bytes
from imagetune.data.loading.formats import open_image
from imagetune.errors import BadImageError
from imagetune.evaluation.image_predictions import BatchPredictor, DecisionRules, ImagePrediction
from imagetune.model.loaded import LoadedModel
from imagetune.run_folder.folder import RunFolder
from imagetune.serving.certificate import is_export
from imagetune.serving.exported import open_export

if TYPE_CHECKING:
    from imagetune.serving.training_images import TrainingImages

Upload = tuple[str, bytes]
"""Name and content of an image file."""

_EXPORT_BATCH = 4
_EMPTY = ("label", "probability", "prediction_set", "out_of_distribution", "out_of_distribution_score")


@dataclass(frozen=True)
class Predictor:
    """A model that is ready to predict.

    Attributes:
        loaded: The model.
        predict: Its predictions for a batch.
        max_batch: Most images that it takes at a time.
        parallel: Whether several processes of one thread each are faster than one.
        training: Training images to show; None to show none.
    """

    loaded: LoadedModel
    predict: BatchPredictor
    max_batch: int
    parallel: bool
    training: TrainingImages | None = None


def open_predictor(folder: Path, *, threads: int = 1, training_images: bool = False) -> Predictor:
    """Return the model of a run or of an export, which has predicted once already.

    Args:
        folder: The run folder, or that of an export.
        threads: Number of threads that an export computes with; Keras reads those of a run from the environment.
        training_images: Whether training images may be shown; an export has none.

    Raises:
        DataError: The run's splits.csv can't be read.
        ModelFileError: It is missing, corrupted, or changed since it was written.
    """
    if is_export(folder):
        # Batches make it no faster: several would wait for one.
        predictor = Predictor(*open_export(folder, threads=threads), _EXPORT_BATCH, parallel=True)
    else:
        predictor = _open_run(folder, training_images=training_images)
    settings = predictor.loaded.image
    image = np.zeros((settings.height, settings.width, 3), np.uint8)
    # The first two sizes of a batch are compiled, which nobody should have to wait for.
    for count in (1, 2):
        predictor.predict(["warm up"] * count, np.stack([image] * count))
    return predictor


def _open_run(folder: Path, *, training_images: bool) -> Predictor:
    # An export needs none of it, nor the gigabyte that it takes.
    with quiet_start():
        from imagetune.evaluation.predict import build_predictor
        from imagetune.model.devices import find_device
        from imagetune.model.inference import choose_batch_size
        from imagetune.model.manifest import load_model
        from imagetune.serving.explain import explain_image  # noqa: F401 - so that no request waits for it
        from imagetune.serving.training_images import read_training_images
    loaded = load_model(folder)
    rule = loaded.conformal
    sets = rule is not None and (loaded.task != "regression" or rule.threshold is not None)
    predict = build_predictor(loaded, DecisionRules(sets=sets), for_many=True)
    training = read_training_images(RunFolder(folder), loaded) if training_images else None
    return Predictor(loaded, predict, choose_batch_size(loaded.model), find_device().is_cpu, training)


def describe_model(predictor: Predictor) -> dict[str, Any]:
    """Return what a server says of a model, as plain JSON values."""
    loaded = predictor.loaded
    return {
        "task": loaded.task,
        "labels": list(loaded.class_names),
        "version": loaded.sha256[:12],
        "backbone": loaded.config.backbone,
        "image": loaded.image.model_dump(mode="json"),
        "max_pixels": loaded.max_pixels,
        "max_batch": predictor.max_batch,
        "parallel": predictor.parallel,
        "coverage": loaded.conformal and loaded.conformal.coverage,
        "out_of_distribution": loaded.detector and loaded.detector.rule.score,
    }


def predict_uploads(predictor: Predictor, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
    """Return a prediction or an error for each image, in their order.

    Args:
        predictor: The model.
        uploads: At most ``max_batch`` image files.
    """
    found: list[dict[str, Any]] = [{}] * len(uploads)
    names, images, places = [], [], []
    for place, (name, data) in enumerate(uploads):
        try:
            image = decode_upload(predictor.loaded, name, data)
        except BadImageError as error:
            found[place] = describe_bad_image(predictor.loaded, name, data, error)
            continue
        names.append(name)
        images.append(image)
        places.append(place)
    if images:
        for place, prediction in zip(places, predictor.predict(names, np.stack(images)), strict=True):
            found[place] = describe_prediction(prediction)
    return found


def explain_upload(predictor: Predictor, upload: Upload) -> dict[str, Any]:
    """Return an explanation of the prediction for one image, or an error."""
    name, data = upload
    if predictor.loaded.model is None:
        message = "An export has no gradients: serve the run itself."
        return {"error": {"status": 501, "code": "no_explanations", "message": message}}
    try:
        image = decode_upload(predictor.loaded, name, data)
    except BadImageError as error:
        return describe_bad_image(predictor.loaded, name, data, error)
    from imagetune.serving.explain import explain_image

    nearest = predictor.training and predictor.training.find(image)
    return {**explain_image(predictor.loaded, image), "nearest": nearest, "error": None}


def decode_upload(loaded: LoadedModel, name: str, data: bytes) -> NDArray[np.uint8]:
    """Return an image as `imagetune fit` decodes and resizes it: (height, width, 3) uint8 RGB of the model's size.

    Raises:
        BadImageError: It can't be decoded, or would take too much.
    """
    if not data:
        raise BadImageError("the file is empty", where=name)
    return load_image_bytes(data, loaded.image, where=name, max_pixels=loaded.max_pixels)


def describe_prediction(prediction: ImagePrediction) -> dict[str, Any]:
    """Return a prediction as plain JSON values."""
    document: dict[str, Any] = {
        "name": prediction.path,
        "label": prediction.label,
        # Several labels together, and numbers, have no probability of their own.
        "probability": prediction.probabilities.get(prediction.label or ""),
        "probabilities": prediction.probabilities,
        "prediction_set": prediction.prediction_set and list(prediction.prediction_set),
        "out_of_distribution": prediction.out_of_distribution,
        "out_of_distribution_score": prediction.out_of_distribution_score,
        "error": None,
    }
    if prediction.value is not None:
        document |= {"value": prediction.value, "interval": prediction.interval and list(prediction.interval)}
    return document


def describe_bad_image(loaded: LoadedModel, name: str, data: bytes, error: BadImageError) -> dict[str, Any]:
    """Return an image that can't be predicted as plain JSON values, with the status of a reply to it alone."""
    large = _has_too_many_pixels(data, loaded.max_pixels)
    status, code = (413, "too_many_pixels") if large else (422, "unreadable_image")
    empty = dict.fromkeys(_EMPTY)
    problem = {"status": status, "code": code, "message": error.what}
    return {"name": name, **empty, "probabilities": {}, "error": problem}


def _has_too_many_pixels(data: bytes, max_pixels: int) -> bool:
    try:
        with open_image(data) as header:
            return header.width * header.height > max_pixels
    except Exception:  # noqa: BLE001 - readers raise whatever they like for a corrupted file
        return False
