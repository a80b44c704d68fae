"""Grad-CAM: which part of an image speaks for a class, by gradients (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from imagetune.model.gradients import SaliencyModel, logit_gradients

Floats = NDArray[np.float32]
# Gradients of so many values at once; each is held a few times.
_MAX_VALUES = 1 << 24


def grad_cam(split: SaliencyModel, features: Floats, targets: NDArray[np.int64]) -> Floats:
    """Return what each place of a feature map adds to a logit, before Grad-CAM's ReLU.

    The gradient's mean over all places is the weight of a channel; a place's value is the weighted sum of its channels.
    The logit is that before softmax or sigmoid, as in the paper.

    Args:
        split: The model.
        features: (n, rows, columns, channels) of `feature_maps`.
        targets: (n, t) outputs to explain.

    Returns:
        (n, t, rows, columns); positive places speak for the output, negative ones against it.
    """
    chunk = max(1, _MAX_VALUES // max(1, features[:1].size))
    maps = np.empty((*targets.shape, *features.shape[1:3]), np.float32)
    for column in range(targets.shape[1]):
        for first in range(0, len(features), chunk):
            part = slice(first, first + chunk)
            gradients = logit_gradients(split, features[part], targets[part, column])
            weights = gradients.mean(axis=(1, 2), keepdims=True)
            maps[part, column] = (features[part] * weights).sum(axis=-1)
    return maps


def heat_map(values: Floats, size: tuple[int, int]) -> Floats:
    """Return a map (rows, columns) as one of an image's size, only what speaks for the output, 1 where most does.

    Args:
        values: Of either sign.
        size: Height and width of the image.

    Returns:
        (height, width) float32 in [0, 1], bilinear between the places; all 0 where nothing speaks for the output.
    """
    height, width = size
    enlarged = cv2.resize(np.maximum(values, 0), (width, height), interpolation=cv2.INTER_LINEAR)
    highest = float(enlarged.max())
    shown: Floats = enlarged / highest if highest > 0 else enlarged
    return shown
