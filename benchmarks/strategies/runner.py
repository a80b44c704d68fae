"""Worker processes: each pinned to a core, with one thread, making one run after the other."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import shutil
import signal
import tempfile
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from benchmarks.strategies.results import Outcome, Task
from benchmarks.strategies.rows import ROWS
from benchmarks.strategies.sets import data_section
from imagetune.core.messages import say_nothing
from imagetune.core.processes import prepare_worker
from imagetune.core.quiet import quiet_start

if TYPE_CHECKING:
    from imagetune.recipe.schema import Recipe
    from imagetune.runs.prepare import Data

BATCH = 16
# TensorFlow keeps some memory of every model that it ever built.
RUNS_A_PROCESS = 40
Report = Callable[[Outcome], None]


def run_all(tasks: list[Task], work: Path, *, workers: int, deadline: float | None, code: str, report: Report) -> None:
    """Make runs until none is left or the time is over.

    Args:
        tasks: In this order.
        work: Folder of images and of run folders while they last.
        workers: Processes, each on a core of its own.
        deadline: Value of ``time.monotonic()`` after which no run is begun.
        code: Digest to write into the outcomes.
        report: Called with each outcome, by one thread at a time.
    """
    queue, lock = deque(tasks), threading.Lock()

    def next_task() -> Task | None:
        with lock:
            late = deadline is not None and time.monotonic() > deadline
            return queue.popleft() if queue and not late else None

    def lane(core: int | None) -> None:
        worker, runs = None, 0
        while (task := next_task()) is not None:
            if worker is None or runs == RUNS_A_PROCESS:
                if worker is not None:
                    worker.stop()
                worker, runs = _Worker(core, work, code), 0
            outcome = worker.run(task)
            if outcome is None:
                return
            runs = RUNS_A_PROCESS if not worker.alive else runs + 1
            with lock:
                report(outcome)
        if worker is not None:
            worker.stop()

    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    lanes = [
        threading.Thread(target=lane, args=(cores[index % len(cores)] if cores else None,), daemon=True)
        for index in range(workers)
    ]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()


class _Worker:
    """A process that makes runs, one at a time."""

    def __init__(self, core: int | None, work: Path, code: str) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, core, work, code), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def run(self, task: Task) -> Outcome | None:
        """Make a run; None where it was stopped from outside, so that it is made another time."""
        try:
            self._pipe.send(task)
            outcome: Outcome = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            if self._process.exitcode == -signal.SIGTERM:
                return None
            what = f"the process died (exit {self._process.exitcode})"
            return Outcome(task.set_name, task.row, task.seed, error=what)
        return outcome

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.close()
        self._process.join(timeout=10)
        self._process.terminate()


def _serve(pipe: Connection, core: int | None, work: Path, code: str) -> None:
    prepare_worker()
    if core is not None:
        os.sched_setaffinity(0, {core})
    threads = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OPENBLAS_NUM_THREADS")
    os.environ.update(dict.fromkeys(threads, "1"), TF_CPP_MIN_LOG_LEVEL="3")
    import cv2

    cv2.setNumThreads(1)
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(_outcome(task, work, code))


def _outcome(task: Task, work: Path, code: str) -> Outcome:
    """Return the outcome of a run; an exception in it is an outcome, too."""
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    origin: dict[str, Any] = {
        "code": code,
        "versions": f"Keras {version('keras')} on {backend} {version(backend)}",
        "machine": _machine(),
        "when": time.strftime("%Y-%m-%d"),
    }
    try:
        return Outcome(task.set_name, task.row, task.seed, **_metrics(task, work), **origin)
    except Exception as error:  # noqa: BLE001  (a row that fails must not stop the others)
        (work / "errors").mkdir(parents=True, exist_ok=True)
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{task.set_name}-{task.row}-{task.seed}")
        (work / "errors" / f"{name}.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return Outcome(task.set_name, task.row, task.seed, error=f"{type(error).__name__}: {error}", **origin)


def _metrics(task: Task, work: Path) -> dict[str, Any]:
    """Train as `imagetune fit` does and test once, without saving the model, drawing plots and writing the report."""
    with quiet_start():
        from imagetune.runs.test import predict_labelled
    from imagetune.data.splits.holdout import open_holdout
    from imagetune.runs.prepare import build_pretrained, build_training_job
    from imagetune.training.loop.fit import train
    from imagetune.training.objectives.metrics import compute_prediction_metrics
    from imagetune.training.setup.stopping import StopRequest

    recipe = recipe_of(task, work)
    data = _read(task.set_name, task.seed, work)
    (work / "runs").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=work / "runs"))
    started, used = time.perf_counter(), time.process_time()
    try:
        images = data.images(recipe)
        model, _ = build_pretrained(recipe, images, say=say_nothing)
        best = train(replace(build_training_job(recipe, images, model, stop=StopRequest()), folder=folder))
        test = open_holdout(data.splits)
        predictions = predict_labelled(model, test, data.splits.class_names, recipe)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    targets = np.eye(len(data.splits.class_names), dtype=np.float32)[predictions.labels]
    metrics = compute_prediction_metrics("single_label", targets, predictions.probabilities.astype(np.float32))
    return {
        "accuracy": metrics["accuracy"],
        "balanced_accuracy": metrics["recall"],
        "log_loss": metrics["loss"],
        "val_accuracy": best.val["accuracy"],
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
    }


def recipe_of(task: Task, work: Path) -> Recipe:
    """Return the whole recipe of a run."""
    from imagetune.recipe.schema import Recipe

    row = next(row for row in ROWS if row.name == task.row)
    base = {
        "name": task.set_name,
        "seed": task.seed,
        "data": data_section(task.set_name, task.seed, work),
        "model": {"backbone": "efficientnet_lite0", "weights": "imagenet"},
        "train": {"batch_size": BATCH, "cache": "off"},
        "tracking": {"enabled": False},
    }
    return Recipe.model_validate(row.recipe(base))


@lru_cache(maxsize=8)
def _read(set_name: str, seed: int, work: Path) -> Data:
    """Read, audit and split the images of a set once for all its rows."""
    from imagetune.runs.prepare import read_data

    baseline = recipe_of(Task(seed, set_name, ROWS[0].name), work)
    return read_data(baseline, say=say_nothing)


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{os.cpu_count()} cores ({platform.machine()}), {memory:.0f} GiB, Python {platform.python_version()}"
