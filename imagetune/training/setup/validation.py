"""Validation metrics, by which models are selected."""

from __future__ import annotations

import keras
import numpy as np

from imagetune.data.loading.pipeline import load_evaluation_batches
from imagetune.data.loading.targets import encode_targets
from imagetune.model.build import find_value_scale
from imagetune.model.inference import predict_probabilities
from imagetune.training.objectives.metrics import compute_prediction_metrics
from imagetune.training.setup.job import TrainingImages


def compute_validation_metrics(model: keras.Model, images: TrainingImages, *, batch_size: int) -> dict[str, float]:
    """Return the validation metrics of a model by name; empty without validation images.

    Args:
        model: Model from raw images to probabilities, or to numbers for regression.
        images: Validation records, and how images are read; test-time augmentation isn't used.
        batch_size: Number of images in a forward pass.

    Raises:
        DataError: An image vanished or can't be decoded.
    """
    if not images.val:
        return {}
    predictions = predict_validation_images(model, images, batch_size=batch_size)
    return compute_metrics_of_predictions(predictions, model, images)


def predict_validation_images(model: keras.Model, images: TrainingImages, *, batch_size: int) -> np.ndarray:
    """Return a model's predictions (n, k) float32 of the validation images, in their order.

    Args:
        model: Model from raw images to probabilities, or to numbers for regression.
        images: Validation records, and how images are read; test-time augmentation isn't used.
        batch_size: Number of images in a forward pass.

    Raises:
        DataError: An image vanished or can't be decoded.
    """
    data = images.config
    with load_evaluation_batches(
        images.val,
        images.class_names,
        image=data.image,
        batch_size=batch_size,
        workers=data.workers,
        max_pixels=data.max_pixels,
        cache=images.caches.open_cache(data),
    ) as batches:
        return predict_probabilities(model, batches)


def compute_metrics_of_predictions(
    predictions: np.ndarray, model: keras.Model, images: TrainingImages
) -> dict[str, float]:
    """Return the metrics of a model's predictions of the validation images, by name.

    Args:
        predictions: (n, k) float32 outputs of the whole model, in the order of the records.
        model: The model, which knows how regression targets are normalised.
        images: Validation records, and what a label is.
    """
    return compute_prediction_metrics(
        images.config.task, encode_validation_targets(images), predictions, find_value_scale(model)
    )


def encode_validation_targets(images: TrainingImages) -> np.ndarray:
    """Return the targets (n, k) float32 of the validation images, in the order of the records."""
    data, labels = images.config, [record.label for record in images.val]
    return encode_targets(labels, images.class_names, data.task, separator=data.label_separator)
