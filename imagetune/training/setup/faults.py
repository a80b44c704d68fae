"""Out-of-memory errors of the backends (TensorFlow, JAX, PyTorch), reported as resource errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras

from imagetune.errors import ResourceError

_MEMORY_SIGNS = ("RESOURCE_EXHAUSTED", "ResourceExhausted", "out of memory", "OutOfMemory", "failed to allocate")


@contextmanager
def convert_memory_errors(batch_size: int) -> Iterator[None]:
    """Turn an out-of-memory error of the block into a ResourceError that suggests a batch size.

    TensorFlow, JAX and PyTorch each have an error class of their own; all derive from RuntimeError or Exception and
    say so in class name or text, and only the chosen backend may be imported.

    Args:
        batch_size: Number of images in a pass of the block.

    Raises:
        ResourceError: The block ran out of main or device memory.
    """
    try:
        yield
    except MemoryError as error:
        raise _build_error(batch_size) from error
    except Exception as error:
        text = f"{type(error).__name__} {error}"
        if any(sign in text for sign in _MEMORY_SIGNS):
            raise _build_error(batch_size) from error
        raise


def _build_error(batch_size: int) -> ResourceError:
    smaller = max(batch_size // 2, 1)
    hint = f"try -o train.batch_size={smaller}, smaller images or fewer trainable layers"
    if batch_size == 1:
        hint = "use smaller images, a smaller backbone or fewer trainable layers"
    where = f"{keras.backend.backend()} backend"
    return ResourceError(f"out of memory at a batch size of {batch_size}", where=where, hint=hint)
