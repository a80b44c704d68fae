"""Keeps what libraries print without being asked off the screen."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def import_notes_hidden() -> Iterator[None]:
    """Hide what TensorFlow prints while it is imported: notes about instruction sets and missing GPUs.

    It writes to file descriptor 2 before its log level counts. If the block fails, all of it is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.stderr is not None:
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # a program without a screen, such as a service
        yield
        return
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


def says_more_than_retracing(record: logging.LogRecord) -> bool:
    """Return whether a record of the logger ``tensorflow`` is worth showing.

    Each trial of a search is a new model, whose functions TensorFlow takes for ones that are made needlessly often.
    """
    return "tf.function retracing" not in record.getMessage()


@contextmanager
def notes_hidden() -> Iterator[None]:
    """Drop what libraries say while a program works, during the block only.

    That is TensorFlow on models that are made again and again, and tqdm on widgets that a notebook could show.
    """
    logger = logging.getLogger("tensorflow")
    logger.addFilter(says_more_than_retracing)
    try:
        with _tqdm_hidden():
            yield
    finally:
        logger.removeFilter(says_more_than_retracing)


@contextmanager
def imports_at_ease() -> Iterator[None]:
    """Let a program import Keras for the first time without its notes, and without a search for garbage meanwhile.

    That search takes a quarter of the time. Unlike on the command line, what a program has made stays in it.
    """
    if "keras" in sys.modules:
        yield
        return
    collected = gc.isenabled()
    gc.disable()
    try:
        with import_notes_hidden(), _tqdm_hidden():
            yield
    finally:
        if collected:
            gc.enable()


@contextmanager
def _tqdm_hidden() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield
