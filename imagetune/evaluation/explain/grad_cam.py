"""Grad-CAM: gradient-weighted class activation maps of a model's last feature map (Selvaraju et al., ICCV 2017)."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from imagetune.model.gradients import SaliencyModel, compute_logit_gradients

Floats = NDArray[np.float32]
# Values of feature maps whose gradients are computed at once, 64 MiB; each is held a few times.
_MAX_VALUES = 1 << 24


def compute_grad_cam(split: SaliencyModel, features: Floats, targets: NDArray[np.int64]) -> Floats:
    """Return Grad-CAM maps before the ReLU: how much each place of a feature map contributes to a logit.

    The gradient's mean over all places is the weight of a channel; a place's value is the weighted sum of its channels.
    The logit is the output before softmax or sigmoid, as in the paper. Without the ReLU, places that speak against the
    output can be shown, too.

    Args:
        split: The model, split behind its last feature map.
        features: Of n images, from `compute_feature_maps`; tokens are arranged by their patches.
        targets: (n, t) indices of the outputs to explain.

    Returns:
        (n, t, rows, columns) float32; positive where a place supports the output, negative where it speaks against it.
    """
    chunk = max(1, _MAX_VALUES // max(1, features[:1].size))
    maps = np.empty((*targets.shape, *split.cells), np.float32)
    for column in range(targets.shape[1]):
        for first in range(0, len(features), chunk):
            part = slice(first, first + chunk)
            gradients = split.arrange(compute_logit_gradients(split, features[part], targets[part, column]))
            weights = gradients.mean(axis=(1, 2), keepdims=True)
            maps[part, column] = (split.arrange(features[part]) * weights).sum(axis=-1)
    return maps


def build_heat_map(values: Floats, size: tuple[int, int]) -> Floats:
    """Return the heat map of a saliency map (rows, columns): its positive values, scaled up to an image's size.

    Args:
        values: Saliency of either sign; only positive values, which support the output, are kept.
        size: Height and width of the image.

    Returns:
        (height, width) float32 in [0, 1] with maximum 1, bilinear between the places; all 0 without a positive value.
    """
    height, width = size
    enlarged = cv2.resize(np.maximum(values, 0), (width, height), interpolation=cv2.INTER_LINEAR)
    highest = float(enlarged.max())
    shown: Floats = enlarged / highest if highest > 0 else enlarged
    return shown
