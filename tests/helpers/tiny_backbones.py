"""Backbones of five blocks with a convolution each, for tests of what happens around a backbone.

Building, tracing and saving a real one takes seconds, most of a test; these take a tenth. What is special to real
backbones is tested with real ones: in `tests/model`, and wherever pretrained weights matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from imagetune.model.backbones import table
from imagetune.model.backbones.blocks import VGG
from imagetune.model.backbones.table import Backbone

TINY = "tiny"
"""With BatchNorm in each block."""
PLAIN = "tiny_plain"
"""Without."""
_CONSTRUCTORS = {TINY: "Tiny", PLAIN: "TinyPlain"}
_WIDTHS = (8, 8, 16, 16, 24)


@contextmanager
def tiny_backbones() -> Iterator[None]:
    """Let recipes name `TINY` and `PLAIN` as backbones inside the block."""
    import keras

    rows = {
        name: Backbone(
            name=name,
            constructor=constructor,
            scheme=VGG,
            preprocessing="tf",
            built_in="none",
            default_size=32,
            min_size=32,
            parameters=_build(name, (32, 32, 3)).count_params(),
        )
        for name, constructor in _CONSTRUCTORS.items()
    }
    constructors = {constructor: _constructor(name) for name, constructor in _CONSTRUCTORS.items()}
    with (
        mock.patch.dict(table._BACKBONES, rows),
        mock.patch.multiple(keras.applications, create=True, **constructors),
    ):
        yield


def _constructor(name):
    def construct(*, include_top, weights, input_shape):
        assert not include_top and weights is None
        return _build(name, input_shape)

    return construct


def _build(name, input_shape):
    import keras

    inputs = x = keras.Input(input_shape, name=f"{name}_input")
    for number, width in enumerate(_WIDTHS, start=1):
        # The last block keeps its size, so that an image of 32 pixels ends as 2 x 2 places to look at.
        strides = 1 if number == len(_WIDTHS) else 2
        x = keras.layers.Conv2D(
            width, 3, strides=strides, padding="same", use_bias=name == PLAIN, name=f"block{number}_conv"
        )(x)
        if name == TINY:
            x = keras.layers.BatchNormalization(name=f"block{number}_bn")(x)
        x = keras.layers.Activation("relu", name=f"block{number}_relu")(x)
    return keras.Model(inputs, x, name=name)
