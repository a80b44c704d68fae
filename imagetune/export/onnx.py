"""ONNX files: float32, float16, dynamic and static int8, by Keras, tf2onnx and the quantizer of ONNX Runtime."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.export.formats import Quantization, convert_quietly
from imagetune.export.plain_operations import plain_operations


def write_onnx(model: keras.Model, file: Path, quantization: Quantization, calibration: NDArray[np.uint8]) -> None:
    """Write an ONNX file that takes images (n, height, width, 3) float32, RGB pixels 0..255.

    Args:
        model: (n, height, width, 3) RGB pixels 0..255 to outputs by name.
        file: The file to write.
        quantization: The number type; float16 keeps float32 inputs and outputs.
        calibration: (n, height, width, 3) training images, for ``int8``.

    Raises:
        ResourceError: The model has an operator that can't be converted.
    """
    with tempfile.TemporaryDirectory(prefix="imagetune-onnx-") as folder:
        plain = file if quantization == "none" else Path(folder) / "plain.onnx"

        def convert() -> None:
            # Keras exports no model that has never been called.
            model.predict_on_batch(np.zeros((1, *model.input_shape[1:]), np.float32))
            with plain_operations(model):
                model.export(str(plain), format="onnx", verbose=False)
            _quantize(plain, file, quantization, calibration)

        convert_quietly("onnx", convert)


def _quantize(plain: Path, file: Path, quantization: Quantization, calibration: NDArray[np.uint8]) -> None:
    if quantization == "none":
        return
    if quantization == "fp16":
        import onnx
        from onnxruntime.transformers.float16 import convert_float_to_float16

        onnx.save(convert_float_to_float16(onnx.load(plain), keep_io_types=True), file)
        return
    from onnxruntime import quantization as quantizer

    # It warns that the model wasn't preprocessed, which is done here.
    logging.getLogger().setLevel(logging.ERROR)
    prepared = plain.with_name("prepared.onnx")
    quantizer.quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
    if quantization == "dynamic":
        quantizer.quantize_dynamic(str(prepared), str(file), weight_type=quantizer.QuantType.QUInt8)
        return
    reader = _build_reader(quantizer.CalibrationDataReader, prepared, calibration)
    quantizer.quantize_static(str(prepared), str(file), reader, per_channel=True)


def _build_reader(base: Any, file: Path, calibration: NDArray[np.uint8]) -> Any:
    import onnxruntime

    name = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]).get_inputs()[0].name

    class Reader(base):
        """Gives the quantizer an image at a time."""

        def __init__(self) -> None:
            self._images: Iterator[NDArray[np.uint8]] = iter(calibration)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            image = next(self._images, None)
            return None if image is None else {name: image[None].astype(np.float32)}

    return Reader()
