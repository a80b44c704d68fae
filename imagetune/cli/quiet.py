"""Keeps the libraries' start-up chatter off the screen."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from imagetune.core.quiet import import_notes_hidden, says_more_than_retracing


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hide what TensorFlow prints while it is imported: notes about instruction sets and missing GPUs.

    If the import fails, all of it is shown. Garbage is not looked for meanwhile, and what was imported is never looked
    through later: a quarter of the time otherwise.
    """
    gc.disable()
    logging.getLogger("tensorflow").addFilter(says_more_than_retracing)
    try:
        with import_notes_hidden():
            yield
    finally:
        gc.freeze()
        gc.enable()
