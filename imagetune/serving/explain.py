"""What a prediction is based on: the regions of the image that speak for it, as an image over the image."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import Any

import cv2
import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.pipeline import Batch
from imagetune.data.loading.targets import compute_median_class
from imagetune.evaluation.explain.grad_cam import compute_grad_cam
from imagetune.evaluation.predictions import UNKNOWN
from imagetune.model.gradients import SaliencyModel, compute_logits, split_for_saliency
from imagetune.model.inference import predict_probabilities
from imagetune.model.loaded import LoadedModel
from imagetune.reports.tiles import overlay_heat, scale_image

PIXELS = 320
HIGHER = "a higher number"


def explain_image(loaded: LoadedModel, image: NDArray[np.uint8]) -> dict[str, Any]:
    """Return the saliency of an image's prediction, by Grad-CAM, as JSON values.

    Args:
        loaded: The model.
        image: (height, width, 3) uint8 RGB of the model's size.

    Returns:
        ``target``, the class that is explained: the predicted one, for several labels the most probable; of numbers
        `HIGHER`. ``saliency``, a PNG as a ``data:`` address: the image in grey as the model sees it, in colour where
        it speaks for the target. ``found``, whether any place does.
    """
    split = _split(loaded.model)
    # One image at a time, and without a graph: the padded passes of an evaluation would cost 32 images.
    features = np.asarray(keras.ops.convert_to_numpy(split.features(image[None], training=False)), np.float32)
    target = _find_target(loaded, image, compute_logits(split, features))
    heat = compute_grad_cam(split, features, np.array([[target]]))[0, 0]
    return {
        "target": HIGHER if loaded.task == "regression" else loaded.class_names[target],
        "saliency": _encode_png(overlay_heat(scale_image(image, PIXELS), heat)),
        "found": bool(heat.max() > 0),
    }


# Splitting copies the weights, which takes a second; a process serves one model.
@lru_cache(maxsize=1)
def _split(model: keras.Model) -> SaliencyModel:
    return split_for_saliency(model)


def _find_target(loaded: LoadedModel, image: NDArray[np.uint8], logits: NDArray[np.float32]) -> int:
    """Return the index of the output to explain: that of the label which `imagetune predict` gives."""
    if loaded.task != "ordinal" and not loaded.tta:
        return int(logits[0].argmax())
    batch = Batch(image[None], np.full(1, UNKNOWN, np.int32), np.arange(1))
    outputs = predict_probabilities(loaded.model, [batch], tta=loaded.tta)
    return int(compute_median_class(outputs)[0] if loaded.task == "ordinal" else outputs[0].argmax())


def _encode_png(image: NDArray[np.uint8]) -> str:
    # OpenCV expects BGR.
    encoded = cv2.imencode(".png", image[:, :, ::-1])[1]
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")
