"""Start-up messages of TensorFlow and other libraries, kept off the screen."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from imagetune.core.environment import settle_backend
from imagetune.core.quiet import hide_import_messages, is_no_retracing_warning


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hide what TensorFlow prints while it is imported in the block: notes about instruction sets and missing GPUs.

    The Keras backend is settled before. If the import fails, all of it is shown. Garbage collection is off meanwhile,
    and later skips the imported objects: otherwise it takes a quarter of the time of the import.
    """
    settle_backend()
    gc.disable()
    # TensorFlow warns of retracing where a model is built for each trial or size, which is what is meant to happen.
    logging.getLogger("tensorflow").addFilter(is_no_retracing_warning)
    try:
        with hide_import_messages():
            yield
    finally:
        gc.freeze()
        gc.enable()
