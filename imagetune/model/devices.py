"""What the model computes on."""

from __future__ import annotations

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Device:
    """What Keras computes on.

    Attributes:
        name: Of the first device, such as ``gpu:0``.
        is_cpu: Whether there is nothing but processor cores, which loading images wants as well.
        backend: Of Keras: ``tensorflow``, ``jax`` or ``torch``.
    """

    name: str
    is_cpu: bool
    backend: str

    @property
    def is_tensorflow_cpu(self) -> bool:
        """Whether TensorFlow computes on the processor, where it gains from what other backends do anyway."""
        return self.is_cpu and self.backend == "tensorflow"


def find_device() -> Device:
    """Return what Keras computes on."""
    names = keras.distribution.list_devices()
    is_cpu = all(name.startswith("cpu") for name in names)
    return Device(str(next(iter(names), "cpu")), is_cpu, keras.backend.backend())
