"""Suppression of messages that TensorFlow and Keras print, at import and during training."""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from imagetune.core.environment import settle_backend
from imagetune.core.processes import require_address_space
from imagetune.core.version import refuse_namesake


@contextmanager
def hide_import_messages() -> Iterator[None]:
    """Hide what TensorFlow prints while it is imported, such as notes about CPU instructions and missing GPUs.

    It writes to file descriptor 2 before its log level takes effect. If the block fails, everything is shown.
    """
    # For later messages; those at import are printed before it is read.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.stderr is not None:
        # Before the descriptor changes: what Python has buffered belongs on the screen.
        sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # a program without stderr, such as a service
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


def is_no_retracing_warning(record: logging.LogRecord) -> bool:
    """Return whether a record of the logger ``tensorflow`` is something else than a retracing warning.

    Each trial of a search is a new model, so tracing its functions again is intended.
    """
    return "tf.function retracing" not in record.getMessage()


@contextmanager
def hide_library_warnings() -> Iterator[None]:
    """Hide warnings of libraries during the block: TensorFlow's about retracing, tqdm's about notebook widgets."""
    logger = logging.getLogger("tensorflow")
    logger.addFilter(is_no_retracing_warning)
    try:
        with _tqdm_hidden():
            yield
    finally:
        logger.removeFilter(is_no_retracing_warning)


@contextmanager
def import_keras_quietly() -> Iterator[None]:
    """Settle the backend, hide messages and pause garbage collection while a program imports Keras for the first time.

    The collection takes a quarter of the time of the import.

    Raises:
        RecipeError: The Keras backend that is set is none that imagetune runs on.
        ResourceError: The other program of our name is installed here.
    """
    refuse_namesake()
    settle_backend()
    if "keras" in sys.modules:
        with _matplotlib_backend_kept():
            yield
        return
    collected = gc.isenabled()
    gc.disable()
    try:
        with hide_import_messages(), _tqdm_hidden(), _matplotlib_backend_kept():
            yield
    finally:
        if collected:
            gc.enable()


@contextmanager
def _tqdm_hidden() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        yield


@contextmanager
def _matplotlib_backend_kept() -> Iterator[None]:
    """Let matplotlib be imported in the block although $MPLBACKEND names a backend that isn't installed.

    We draw without a backend. The name is given to matplotlib afterwards, for the program's own plots.
    """
    if "matplotlib" in sys.modules or "MPLBACKEND" not in os.environ:
        yield
        return
    named = os.environ.pop("MPLBACKEND")
    try:
        yield
    finally:
        os.environ["MPLBACKEND"] = named
        if "matplotlib" in sys.modules:
            with suppress(ValueError):
                sys.modules["matplotlib"].rcParams["backend"] = named


@contextmanager
def quiet_start() -> Iterator[None]:
    """Hide what TensorFlow prints while it is imported in the block: notes about instruction sets and missing GPUs.

    The Keras backend is settled before. If the import fails, all of it is shown. Garbage collection is off meanwhile,
    and later skips the imported objects: otherwise it takes a quarter of the time of the import.

    Raises:
        ResourceError: A limit on memory leaves too little for the import.
    """
    require_address_space()
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
