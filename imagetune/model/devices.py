"""The device that Keras computes on: CPU or accelerator, and the backend."""

from __future__ import annotations

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Device:
    """The device that Keras computes on.

    Attributes:
        name: Name of the first device, such as ``gpu:0``.
        is_cpu: Whether there are only CPU cores, which loading images needs as well.
        backend: Keras's backend: ``tensorflow``, ``jax`` or ``torch``.
    """

    name: str
    is_cpu: bool
    backend: str

    @property
    def is_tensorflow_cpu(self) -> bool:
        """Whether TensorFlow computes on the CPU, where other settings are faster than on an accelerator."""
        return self.is_cpu and self.backend == "tensorflow"


def find_device() -> Device:
    """Return the device that Keras computes on."""
    # Keras's own list, because no module may name TensorFlow.
    names = keras.distribution.list_devices()
    is_cpu = all(name.startswith("cpu") for name in names)
    return Device(str(next(iter(names), "cpu")), is_cpu, keras.backend.backend())
