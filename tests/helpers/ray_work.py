"""Stub work of trials for tests of the Ray executor; the cluster's processes import it."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import ray

from imagetune.errors import DivergedError, StoppedError
from imagetune.search.executors.protocol import Outcome
from imagetune.training.setup.stopping import listen_for_stop


def write(task):
    """Create the trial's folder, which must not exist, and complete, as a real trial does."""
    task.folder.mkdir()
    (task.folder / "status.json").open("x").close()
    (task.folder / "pid").write_text(str(os.getpid()))
    (task.folder / "node").write_text(ray.get_runtime_context().get_node_id())
    time.sleep(0.2)
    return Outcome("completed", 0.5, epochs=3)


def write_when_allowed(task):
    outcome = write(task)
    while not (task.folder.parent / "go").exists():
        time.sleep(0.05)
    return outcome


def kill_own_process(task):
    print("about to die", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def kill_own_process_once(task):
    outcome = write(task)
    tried = task.folder.parent / "tried"
    if not tried.exists():
        tried.touch()
        kill_own_process(task)
    return outcome


def be_stopped_once(task):
    """Return a lost outcome at the first attempt, as on a machine that shuts down and stops its processes."""
    outcome = write(task)
    tried = task.folder.parent / "tried"
    if not tried.exists():
        tried.touch()
        return Outcome("lost", error=str(StoppedError(signal.SIGTERM)))
    return outcome


def have_a_bug(task):
    raise ZeroDivisionError("a bug\nof ours")


def diverge(task):
    return Outcome("failed", error=str(DivergedError("the loss is NaN")))


def lack_a_library(task):
    import no_such_library  # noqa: F401


NAMES = ("KERAS_BACKEND", "CUDA_VISIBLE_DEVICES", "TF_NUM_INTRAOP_THREADS")


def tell_surroundings(task):
    task.folder.mkdir()
    lines = [*(os.environ[name] for name in NAMES), str(Path.cwd())]
    (task.folder / "surroundings").write_text("\n".join(lines))
    return Outcome("completed", 0.5)


def go_on_until_stopped(task):
    try:
        with listen_for_stop() as stop:
            write(task)
            while True:
                time.sleep(0.05)
                stop.check()
    except StoppedError:
        (task.folder / "stopped").touch()
    return Outcome("lost")


def never_stop(task):
    write(task)
    while True:
        with suppress(BaseException):
            time.sleep(60)
