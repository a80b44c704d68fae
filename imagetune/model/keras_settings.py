"""Keras's global settings as models and trainings need them, whatever ``keras.json`` or a program has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

_EPSILON = 1e-7


def set_keras_settings(precision: str | None = None) -> None:
    """Set Keras's global settings: channels last, losses in float32, no limit of epochs, and a precision.

    Args:
        precision: The dtype policy of layers that are made from now on; None leaves it.
    """
    config = keras.config
    config.set_image_data_format("channels_last")
    config.set_floatx("float32")
    config.set_epsilon(_EPSILON)
    config.set_max_epochs(None)
    config.set_max_steps_per_epoch(None)
    if precision is not None:
        config.set_dtype_policy(precision)


@contextmanager
def keras_settings(precision: str | None = None) -> Iterator[None]:
    """Set Keras's global settings as `set_keras_settings` does inside the block, and restore them afterwards."""
    with keras_left_alone():
        set_keras_settings(precision)
        yield


@contextmanager
def keras_left_alone() -> Iterator[None]:
    """Restore Keras's global settings, which the block may change, to what they were before it."""
    config = keras.config
    policy = config.dtype_policy()
    before = (config.image_data_format(), config.floatx(), config.epsilon())
    limits = (config.max_epochs(), config.max_steps_per_epoch())
    try:
        yield
    finally:
        config.set_image_data_format(before[0])
        config.set_floatx(before[1])
        config.set_epsilon(before[2])
        config.set_max_epochs(limits[0])
        config.set_max_steps_per_epoch(limits[1])
        config.set_dtype_policy(policy)
