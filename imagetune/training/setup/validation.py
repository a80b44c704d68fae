"""Figures of the validation pictures: what a model is selected by."""

from __future__ import annotations

import keras
import numpy as np

from imagetune.data.loading.pipeline import evaluation_batches
from imagetune.data.loading.targets import encode_targets
from imagetune.model.build import value_scale_of
from imagetune.model.inference import predict_probabilities
from imagetune.training.objectives.metrics import figures_of_answers
from imagetune.training.setup.job import Pictures


def compute_validation_metrics(model: keras.Model, pictures: Pictures, *, batch_size: int) -> dict[str, float]:
    """Return the validation figures of the model as it is, by name; empty without validation pictures.

    Args:
        model: Raw pictures to probabilities, or to numbers for regression.
        pictures: Its validation records, and how they are read; seen without test-time augmentation.
        batch_size: Pictures a forward pass.

    Raises:
        DataError: A picture vanished or can't be decoded.
    """
    if not pictures.val:
        return {}
    data = pictures.config
    with evaluation_batches(
        pictures.val,
        pictures.class_names,
        image=data.image,
        batch_size=batch_size,
        workers=data.workers,
        max_pixels=data.max_pixels,
        cache=pictures.caches.opened(data),
    ) as batches:
        predictions = predict_probabilities(model, batches)
    return compute_metrics_of_validation(predictions, model, pictures)


def compute_metrics_of_validation(predictions: np.ndarray, model: keras.Model, pictures: Pictures) -> dict[str, float]:
    """Return the figures of a model's predictions for the validation pictures, by name.

    Args:
        predictions: (n, k) float32 outputs of the whole model, in the order of the records.
        model: It knows what normalises numbers.
        pictures: Its validation records, and what a label is.
    """
    data = pictures.config
    labels = [record.label for record in pictures.val]
    targets = encode_targets(labels, pictures.class_names, data.task, separator=data.label_separator)
    return figures_of_answers(data.task, targets, predictions, value_scale_of(model))
