"""Inference: predicted probabilities for batches of images, with test-time augmentation."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

import keras
import numpy as np

from imagetune.core.stopping import check_stop
from imagetune.model.devices import find_device
from imagetune.model.test_time_augmentation import apply_tta
from imagetune.model.traces import free_graphs
from imagetune.model.trainable import list_leaf_layers
from imagetune.recipe.sections.evaluate import TTATransform

# Layers of a batch pass on to each other at most so much: two are in memory at a time, and two batches.
_LARGEST_OUTPUT_BYTES = 1 << 30
_MOST_IMAGES = 32


def choose_batch_size(model: keras.Model) -> int:
    """Return how many images go through a model at a time: 32, or fewer where its largest layer would fill gigabytes.

    Args:
        model: A model of images.
    """
    return max(1, min(_MOST_IMAGES, _LARGEST_OUTPUT_BYTES // max(measure_largest_output(model), 1)))


def measure_largest_output(model: keras.Model) -> int:
    """Return the size in bytes that the largest output of a layer has for one image, as float32."""
    outputs = (output for layer in list_leaf_layers(model) for output in keras.tree.flatten(layer.output))
    # How many tokens there are is open from DINOv2's layer scale on; the heads of its attention know it.
    return max((4 * math.prod(side or 1 for side in output.shape[1:]) for output in outputs), default=0)


class ImageBatch(Protocol):
    """A batch that has images; ``imagetune.data.loading.pipeline.Batch`` is one."""

    @property
    def images(self) -> np.ndarray:
        """(batch, height, width, 3) uint8, RGB."""


AnyBatch = TypeVar("AnyBatch", bound=ImageBatch)


def predict_probabilities(
    model: keras.Model, batches: Iterable[ImageBatch], *, tta: Sequence[TTATransform] = ()
) -> np.ndarray:
    """Return the predicted probabilities of all images, in the order of the batches.

    Smaller batches, such as the last one, are filled up to the size of the first, so that the model is compiled once.
    With test-time augmentation the prediction is the mean over the image and its transforms (Krizhevsky et al., NIPS
    2012, averaged ten crops so), at the cost of a forward pass each.

    Args:
        model: (batch, height, width, 3) uint8 RGB to (batch, classes) probabilities.
        batches: Batches of images, none larger than the first.
        tta: Transforms of test-time augmentation, beside the image itself.

    Returns:
        (images, classes) float32 probabilities, or (images, 1) numbers for regression.
    """
    results = [outputs for _, outputs in predict_batches(model, batches, tta=tta)]
    return np.concatenate(results) if results else np.zeros((0, model.output_shape[-1]), np.float32)


def predict_batches(
    model: keras.Model, batches: Iterable[AnyBatch], *, tta: Sequence[TTATransform] = (), size: int = 0
) -> Iterator[tuple[AnyBatch, np.ndarray]]:
    """Yield each batch with the model's outputs (batch, ...) float32, in the order of the batches.

    Args:
        model: A model of the batches' images, or of features in their place.
        batches: Batches of images, none larger than ``size``.
        tta: Transforms of test-time augmentation that outputs are averaged over, beside the image itself.
        size: Number of images that each batch is filled up to; by default that of the first.
    """
    pending: deque[tuple[AnyBatch, Future[np.ndarray]]] = deque()
    compiled, parallel = None, _count_parallel_batches()
    with ThreadPoolExecutor(parallel, "imagetune-forward") as pool:
        for batch in batches:
            check_stop()
            if compiled is None:  # the first call compiles, which is done once
                size = size or len(batch.images)
                with free_graphs():
                    compiled = _predict(model, batch.images, size, tta)
                yield batch, compiled
                continue
            pending.append((batch, pool.submit(_predict, model, batch.images, size, tta)))
            if len(pending) > parallel:
                done, outputs = pending.popleft()
                yield done, outputs.result()
        for done, outputs in pending:
            yield done, outputs.result()


def _count_parallel_batches() -> int:
    """Return the number of batches that go through a model at a time.

    On the CPU with TensorFlow, two keep the cores busy where the operations of one can't: 6 to 19% faster, measured.
    """
    return 2 if find_device().is_tensorflow_cpu else 1


def _predict(model: keras.Model, images: np.ndarray, size: int, tta: Sequence[TTATransform] = ()) -> np.ndarray:
    """Return a model's outputs (batch, ...) float32 for a batch that is padded to ``size`` images on the way."""
    filling = np.zeros((max(size - len(images), 0), *images.shape[1:]), images.dtype)
    filled = np.concatenate([images, filling]) if len(filling) else images
    outputs = np.asarray(model.predict_on_batch(filled), np.float32)
    for transform in tta:
        outputs = outputs + np.asarray(model.predict_on_batch(apply_tta(transform, filled)), np.float32)
    return (outputs / (1 + len(tta)))[: len(images)]
