"""Keeps the libraries' start-up chatter off the screen."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hide what TensorFlow prints while it is imported: notes about instruction sets and missing GPUs.

    It writes to file descriptor 2 before its log level counts. If the import fails, all of it is shown. Garbage is not
    looked for meanwhile, and what was imported is never looked through later: a quarter of the time otherwise.
    """
    gc.disable()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # Each trial of a search is a new model, whose functions TensorFlow takes for ones that are made needlessly often.
    logging.getLogger("tensorflow").addFilter(_says_more_than_retracing)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except BaseException:
            hidden.seek(0)
            os.write(kept, hidden.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            gc.freeze()
            gc.enable()


def _says_more_than_retracing(record: logging.LogRecord) -> bool:
    return "tf.function retracing" not in record.getMessage()
