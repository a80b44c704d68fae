"""Int8 with some layers in float32: which layers cost a model its predictions, and models without the int8 of these."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from imagetune.export.formats import convert_quietly
from imagetune.export.litert import build_converter
from imagetune.export.outputs import PROBABILITIES

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the layers that are kept in float32, one after the other until the predictions are good enough."""
RANKING_IMAGES = 32
Images = NDArray[np.uint8]


def keep_layers_float(saved_model: Path, calibration: Images) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """Yield names of layers and the LiteRT model that keeps them in float32: more and more, the costliest first.

    The cost of a layer is the mean difference of the predictions for calibration images when that layer alone is int8.
    (TensorFlow's quantization debugger gives errors in steps of each layer: 0.29 by rounding alone, nearly everywhere.)

    Args:
        saved_model: A folder of `write_saved_model`.
        calibration: (n, height, width, 3) training images.
    """
    quantizer = convert_quietly("litert", partial(_Quantizer, saved_model, calibration))
    names = convert_quietly("litert", partial(quantizer.rank_layers, calibration[:RANKING_IMAGES]))
    for count in sorted({max(1, round(share * len(names))) for share in SHARES}):
        kept = tuple(names[:count])
        yield kept, convert_quietly("litert", partial(quantizer.quantize, kept))


class _Quantizer:
    """A calibrated model, from which int8 models are made in a moment."""

    def __init__(self, saved_model: Path, calibration: Images) -> None:
        converter = build_converter(saved_model, "int8", calibration)
        self._options = tf.lite.experimental.QuantizationDebugOptions()
        self._debugger = tf.lite.experimental.QuantizationDebugger(
            converter=converter, debug_dataset=lambda: [[calibration[:1]]], debug_options=self._options
        )

    def quantize(self, kept: Sequence[str]) -> bytes:
        """Return an int8 model in which the named layers compute with float32."""
        self._options.denylisted_nodes = list(kept)
        model: bytes = self._debugger.get_nondebug_quantized_model()
        return model

    def rank_layers(self, images: Images) -> list[str]:
        """Return the names of the layers, the one first whose int8 alone changes the predictions most."""
        names = self._list_layers()
        expected = _predict(self.quantize(names), images)
        costs = {
            name: np.abs(_predict(self.quantize([one for one in names if one != name]), images) - expected).mean()
            for name in names
        }
        return sorted(names, key=lambda name: -costs[name])

    def _list_layers(self) -> list[str]:
        table = io.StringIO()
        self._debugger.run()
        self._debugger.layer_statistics_dump(table)
        return list(dict.fromkeys(row["tensor_name"] for row in csv.DictReader(io.StringIO(table.getvalue()))))


def _predict(model: bytes, images: Images) -> NDArray[np.float64]:
    from ai_edge_litert.interpreter import Interpreter

    run: Any = Interpreter(model_content=model).get_signature_runner()
    return np.concatenate([run(images=image[None])[PROBABILITIES] for image in images]).astype(np.float64)
