"""What the model computes on."""

from __future__ import annotations

import keras


def on_accelerator() -> bool:
    """Tell whether Keras computes on anything but processor cores."""
    return not all(device.startswith("cpu") for device in keras.distribution.list_devices())


def tensorflow_on_cpu() -> bool:
    """Tell whether TensorFlow computes on the processor, where it gains from what other backends do anyway."""
    return keras.backend.backend() == "tensorflow" and not on_accelerator()
