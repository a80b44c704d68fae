"""Preprocessing: the normalisation of pixels that each backbone expects, as layers of the model itself.

Only layers and operations that Keras ships are used, so that a saved model takes raw RGB and opens in plain Keras.
The numbers are those of ``keras.applications.imagenet_utils.preprocess_input`` and of the layers that Keras builds into
EfficientNet, EfficientNetV2, MobileNetV3 and ConvNeXt.
"""

from __future__ import annotations

from typing import Any

import keras

from imagetune.model.backbones.architectures import Preprocessing

IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
IMAGENET_MEAN_RGB = (0.485, 0.456, 0.406)
IMAGENET_STD_RGB = (0.229, 0.224, 0.225)
# Half precision would round the pixels' small differences from the mean.
DTYPE = "float32"


def add_preprocessing(pixels: Any, kind: Preprocessing) -> Any:
    """Return raw pixels normalised as the backbone expects.

    Args:
        pixels: Keras tensor (batch, height, width, 3) float32, RGB, 0..255.
        kind: ``caffe``: BGR minus the ImageNet mean. ``tf``: -1..1. ``torch``: 0..1, then standardised by the ImageNet
            mean and deviation of each channel. ``lite``: (x - 127) / 128. ``v2``: (x - 128) / 128. ``none``: as they
            are, for a plug-in whose network begins with its own normalisation.

    Returns:
        Keras tensor (batch, height, width, 3) float32.
    """
    # As layers, unlike Keras's preprocess_input, which no saved model contains and which changes float arrays in place.
    if kind == "caffe":
        bgr = keras.ops.take(pixels, [2, 1, 0], axis=-1)
        return _standardise(bgr, IMAGENET_MEAN_BGR, (1.0, 1.0, 1.0))
    if kind == "torch":
        mean = tuple(255.0 * value for value in IMAGENET_MEAN_RGB)
        return _standardise(pixels, mean, tuple(255.0 * value for value in IMAGENET_STD_RGB))
    scales = {"tf": (1 / 127.5, -1.0), "lite": (1 / 128, -127 / 128), "v2": (1 / 128, -1.0), "none": (1.0, 0.0)}
    scale, offset = scales[kind]
    return keras.layers.Rescaling(scale, offset=offset, dtype=DTYPE, name="preprocessing")(pixels)


def _standardise(pixels: Any, mean: tuple[float, ...], deviation: tuple[float, ...]) -> Any:
    variance = [value**2 for value in deviation]
    return keras.layers.Normalization(mean=list(mean), variance=variance, dtype=DTYPE, name="preprocessing")(pixels)
