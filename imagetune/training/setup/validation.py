"""Validation metrics, by which models are selected."""

from __future__ import annotations

import keras
import numpy as np

from imagetune.data.loading.pipeline import evaluation_batches
from imagetune.data.loading.targets import encode_targets
from imagetune.model.build import value_scale_of
from imagetune.model.inference import predict_probabilities
from imagetune.training.objectives.metrics import metrics_of_predictions
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
    data = images.config
    with evaluation_batches(
        images.val,
        images.class_names,
        image=data.image,
        batch_size=batch_size,
        workers=data.workers,
        max_pixels=data.max_pixels,
        cache=images.caches.opened(data),
    ) as batches:
        predictions = predict_probabilities(model, batches)
    return compute_metrics_of_validation(predictions, model, images)


def compute_metrics_of_validation(
    predictions: np.ndarray, model: keras.Model, images: TrainingImages
) -> dict[str, float]:
    """Return the metrics of a model's predictions of the validation images, by name.

    Args:
        predictions: (n, k) float32 outputs of the whole model, in the order of the records.
        model: The model, which knows how regression targets are normalised.
        images: Validation records, and what a label is.
    """
    data = images.config
    labels = [record.label for record in images.val]
    targets = encode_targets(labels, images.class_names, data.task, separator=data.label_separator)
    return metrics_of_predictions(data.task, targets, predictions, value_scale_of(model))
