"""Predictions for unlabelled images, by file or from memory; a file that can't be read gets an error of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.decode import resize_image
from imagetune.data.loading.pipeline import Batch, load_unlabelled_batches
from imagetune.evaluation.image_predictions import (
    NO_DECISION_RULES,
    BatchPredictor,
    DecisionRules,
    ImagePrediction,
    build_image_predictions,
    require_rules,
)
from imagetune.evaluation.predictions import UNKNOWN, WORTH_FOLDING
from imagetune.model.build import append_layer_output
from imagetune.model.fold_batch_norm import fold_batch_norm_layers
from imagetune.model.inference import choose_batch_size, predict_batches
from imagetune.model.loaded import LoadedModel


def predict_images(
    loaded: LoadedModel, paths: Sequence[str], ways: DecisionRules = NO_DECISION_RULES, *, start: int = 0
) -> Iterator[ImagePrediction]:
    """Yield a prediction for each path, in order, a batch at a time; memory does not grow with their number.

    Args:
        loaded: The model.
        paths: The files.
        ways: The decision rules of the model's manifest to apply.
        start: The first path to predict; what comes is the same as from there on in a pass over all.

    Raises:
        ModelFileError: The manifest lacks a rule that is to be applied; at the call.
    """
    require_rules(loaded, ways)
    # Not more than there are: a single image is not to cost as much as a full batch.
    size = max(1, min(choose_batch_size(loaded.model), len(paths)))
    # From the beginning of a batch on: rounding may differ by an image's place in it.
    return islice(_predict_files(loaded, paths, ways, size, start // size), start % size, None)


def _predict_files(
    loaded: LoadedModel, paths: Sequence[str], ways: DecisionRules, size: int, first: int
) -> Iterator[ImagePrediction]:
    place = first * size
    with load_unlabelled_batches(
        paths, image=loaded.image, batch_size=size, max_pixels=loaded.max_pixels, start_step=first
    ) as batches:
        for batch, rows, scores in _compute_outputs(loaded, _build_networks(loaded, count=len(paths)), batches, size):
            names = paths[place : place + len(batch.indices) + len(batch.errors)]
            yield from _build_batch(loaded, names, place, batch, rows, scores, ways)
            place += len(names)


def predict_arrays(
    loaded: LoadedModel, images: Sequence[NDArray[np.uint8]], ways: DecisionRules = NO_DECISION_RULES
) -> Iterator[ImagePrediction]:
    """Yield a prediction for each image that is in memory already, in order, a batch at a time.

    Args:
        loaded: The model.
        images: (h, w, 3) uint8 RGB each, of any size; they are resized as images from files are. Their paths are
            ``images[0]``, ``images[1]``, ...
        ways: The decision rules of the model's manifest to apply.

    Raises:
        ModelFileError: The manifest lacks a rule that is to be applied; at the call.
    """
    require_rules(loaded, ways)
    return _predict_arrays(loaded, images, ways)


def build_predictor(
    loaded: LoadedModel, ways: DecisionRules = NO_DECISION_RULES, *, for_many: bool = False
) -> BatchPredictor:
    """Return a function that predicts batches of images of the model's size, for whoever has one after another.

    Args:
        loaded: The model.
        ways: The decision rules of the model's manifest to apply.
        for_many: Whether there will be thousands of images, which BatchNorm is folded for; probabilities are the same
            up to rounding.

    Raises:
        ModelFileError: The manifest lacks a rule that is to be applied.
    """
    require_rules(loaded, ways)
    networks = _build_networks(loaded, count=WORTH_FOLDING if for_many else 1)

    def predict(names: Sequence[str], images: NDArray[np.uint8]) -> list[ImagePrediction]:
        batch = Batch(images, np.full(len(images), UNKNOWN, np.int32), np.arange(len(images)))
        ((_, rows, scores),) = _compute_outputs(loaded, networks, [batch], len(images))
        return _build_batch(loaded, names, 0, batch, rows, scores, ways)

    return predict


def _predict_arrays(
    loaded: LoadedModel, images: Sequence[NDArray[np.uint8]], ways: DecisionRules
) -> Iterator[ImagePrediction]:
    size = max(1, min(choose_batch_size(loaded.model), len(images)))
    starts = range(0, len(images), size)
    batches = (_stack(images[first : first + size], first, loaded) for first in starts)
    for batch, rows, scores in _compute_outputs(loaded, _build_networks(loaded, count=len(images)), batches, size):
        first = int(batch.indices[0])
        names = [f"images[{index}]" for index in batch.indices]
        yield from _build_batch(loaded, names, first, batch, rows, scores, ways)


def _stack(images: Sequence[NDArray[np.uint8]], first: int, loaded: LoadedModel) -> Batch:
    resized = np.stack([resize_image(image, loaded.image) for image in images])
    return Batch(resized, np.full(len(resized), UNKNOWN, np.int32), np.arange(first, first + len(resized)))


@dataclass(frozen=True)
class _Networks:
    """The networks that predict: ``both`` gives outputs and evidence side by side, ``copies`` outputs alone."""

    both: keras.Model
    copies: keras.Model


def _build_networks(loaded: LoadedModel, *, count: int) -> _Networks:
    """Return the networks to predict ``count`` images with."""
    layer, model = loaded.evidence_layer, loaded.model
    # One forward pass gives the outputs and what the detector needs.
    both = model if layer is None else append_layer_output(model, layer)
    if count * (1 + len(loaded.tta)) >= WORTH_FOLDING:
        both = fold_batch_norm_layers(both)
        # Only augmented copies go through the model without what the detector needs.
        model = fold_batch_norm_layers(model) if layer is not None and loaded.tta else both
    return _Networks(both, model)


def _compute_outputs(
    loaded: LoadedModel, networks: _Networks, batches: Iterable[Batch], size: int
) -> Iterator[tuple[Batch, np.ndarray, NDArray[np.float64] | None]]:
    """Yield each batch with the model's outputs (b, k) and out-of-distribution scores (b,); None without a detector.

    Test-time augmentation changes the outputs only: scores are those of the image itself, as they were when their
    threshold was chosen.
    """
    detector, outputs, both = loaded.detector, len(loaded.class_names), networks.both
    if detector is None:
        yield from ((batch, rows, None) for batch, rows in predict_batches(both, batches, tta=loaded.tta, size=size))
        return
    for batch, seen in predict_batches(both, batches, size=size):
        rows = seen[:, :outputs]
        if loaded.tta:
            _, rows = next(predict_batches(networks.copies, [batch], tta=loaded.tta, size=size))
        yield batch, rows, detector.scores(seen[:, outputs:], loaded.task)


def _build_batch(
    loaded: LoadedModel,
    names: Sequence[str],
    first: int,
    batch: Batch,
    rows: np.ndarray,
    scores: NDArray[np.float64] | None,
    ways: DecisionRules,
) -> list[ImagePrediction]:
    """Return the predictions of a batch in the order of its images, those of which can't be read with the others."""
    read = [names[int(index) - first] for index in batch.indices]
    found = build_image_predictions(read, rows, loaded, ways, scores=scores)
    # The first error is inserted first, so that each comes to its place among all.
    for index, what in sorted(batch.errors):
        found.insert(index - first, ImagePrediction(names[index - first], None, {}, what))
    return found
