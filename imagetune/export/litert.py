"""LiteRT files (TensorFlow Lite): float32, float16, dynamic range and int8, of built-in operators only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from imagetune.export.formats import Quantization, convert_quietly
from imagetune.export.saved_model import IMAGES


def write_litert(saved_model: Path, file: Path, quantization: Quantization, calibration: NDArray[np.uint8]) -> None:
    """Write a LiteRT file that takes one uint8 image (1, height, width, 3) at a time.

    Weights of int8 have a scale for each channel; the scales of activations come from the calibration images. The
    converter's own int8 agreed with the model more often than that of ai-edge-quantizer (measured, docs/export.md).

    Args:
        saved_model: A folder of `write_saved_model`.
        file: The file to write.
        quantization: The number type.
        calibration: (n, height, width, 3) training images, for ``int8``.

    Raises:
        ResourceError: The model has an operator that LiteRT doesn't have built in.
    """
    file.write_bytes(convert_quietly("litert", build_converter(saved_model, quantization, calibration).convert))


def build_converter(saved_model: Path, quantization: Quantization, calibration: NDArray[np.uint8]) -> Any:
    """Return TensorFlow's converter, ready for a SavedModel and a number type."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[IMAGES])
    # Without this list TensorFlow's own operators would be let in, which the small runtimes don't have.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if quantization != "none":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization == "int8":

        def show() -> Iterator[list[NDArray[np.uint8]]]:
            yield from ([image[None]] for image in calibration)

        converter.representative_dataset = show
    return converter
