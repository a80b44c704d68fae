"""A process that holds the model: what runs in it, and the handle by which the server calls and replaces it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from imagetune.core.processes import hide_main_module, prepare_worker
from imagetune.errors import ImagetuneError, ResourceError

Task = Literal["predict", "explain"]
_START_SECONDS = 300.0


class ModelProcess:
    """A process with a loaded model, to be called by one thread at a time.

    Args:
        folder: The run folder.
        threads: Number of threads that the model computes with.
        training_images: Whether explanations show training images.

    Raises:
        ImagetuneError: The model can't be loaded.
    """

    def __init__(self, folder: Path, *, threads: int, training_images: bool = False) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_run, args=(theirs, folder, threads, training_images), name="imagetune-model", daemon=True
        )
        with hide_main_module():
            self._process.start()
        # Ours alone would keep the pipe open after the process has died.
        theirs.close()
        self.description: dict[str, Any] = self._await_start()

    @property
    def sentinel(self) -> int:
        """A file descriptor that becomes readable when the process has died."""
        return self._process.sentinel

    def call(self, task: Task, uploads: Sequence[tuple[str, bytes]], *, timeout_seconds: float) -> list[dict[str, Any]]:
        """Return what the model says of image files.

        Raises:
            EOFError: The process has died.
            OSError: The same.
            TimeoutError: It takes too long.
        """
        self._connection.send((task, uploads))
        if not self._connection.poll(timeout_seconds):
            raise TimeoutError
        found: list[dict[str, Any]] = self._connection.recv()
        return found

    def stop(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.kill()
        self._process.join()

    def _await_start(self) -> dict[str, Any]:
        try:
            if not self._connection.poll(_START_SECONDS):
                raise EOFError
            kind, *content = self._connection.recv()
        except (EOFError, OSError) as error:
            self.stop()
            what = "the process that loads the model has died"
            raise ResourceError(what, where="serve", hint="look whether memory ran out") from error
        if kind == "ready":
            description: dict[str, Any] = content[0]
            return description
        self.stop()
        error_class, what, where, hint = content
        raise error_class(what, where=where, hint=hint)


def _run(connection: Connection, folder: Path, threads: int, training_images: bool) -> None:
    """Load the model, then answer one call after another, until the server goes."""
    prepare_worker()
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
    try:
        from imagetune.serving.predictor import describe_model, explain_upload, open_predictor, predict_uploads

        predictor = open_predictor(folder, threads=threads, training_images=training_images)
    except ImagetuneError as error:
        connection.send(("failed", type(error), error.what, error.where, error.hint))
        return
    # A container's stop may reach the whole group; the server tells its processes when there is nothing left to do.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    connection.send(("ready", describe_model(predictor)))
    while True:
        try:
            task, uploads = connection.recv()
        except (EOFError, OSError):
            return
        if task == "explain":
            connection.send([explain_upload(predictor, upload) for upload in uploads])
        else:
            connection.send(predict_uploads(predictor, uploads))
