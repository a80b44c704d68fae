"""Stub work of trials for tests of the executors: importable in their processes, quick, without Keras."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from imagetune.search.executors.protocol import Outcome


def done(task):
    """Complete, with the trial's number as the objective."""
    return Outcome("completed", float(task.trial_id), epochs=2, best_epoch=1)


def telling(task):
    """Print through Python and through the file descriptor, in the folder that the trial creates."""
    task.folder.mkdir(parents=True)
    print("by Python")
    os.write(2, b"by a library\n")
    return done(task)


def describing(task):
    """Write the process's number, the environment variables that it sees, and whether Keras is imported."""
    seen = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "TF_NUM_INTRAOP_THREADS", "TRIAL_TEST")}
    loaded = "keras" in sys.modules
    task.folder.mkdir(parents=True)
    (task.folder / "seen.txt").write_text(repr({**seen, "pid": os.getpid(), "keras": loaded}))
    return done(task)


def stamped(task):
    """Write when the trial began."""
    now = time.time()
    task.folder.mkdir(parents=True)
    (task.folder / "began.txt").write_text(str(now))
    return done(task)


def dying(how, task):
    """End the process without an outcome, in one of several ways; trial 002 completes."""
    if task.trial_id == "002":
        return done(task)
    if how == "signal":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exit":
        print("about to go")
        sys.stdout.flush()
        os._exit(3)
    raise ValueError("not\nmeant to happen")


def hanging_on(task):
    """Return an outcome, and leave a thread behind that never ends."""
    threading.Thread(target=time.sleep, args=(600,)).start()
    return done(task)


def polite(task):
    """Work until asked to stop, then note that in a file and return."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    task.folder.mkdir(parents=True)
    write_whole(task.folder / "pid", str(os.getpid()))
    while not stopped.is_set():
        time.sleep(0.01)
    (task.folder / "asked").touch()
    return Outcome("lost")


def stubborn(task):
    """Ignore all requests to stop, together with a child process that does so, too."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    grandchild = subprocess.Popen([sys.executable, "-c", code])
    task.folder.mkdir(parents=True)
    write_whole(task.folder / "pids", f"{os.getpid()} {grandchild.pid}")
    time.sleep(600)
    return done(task)


def write_whole(path: Path, text: str) -> None:
    """Write a file atomically: it is complete or absent."""
    path.with_suffix(".tmp").write_text(text)
    path.with_suffix(".tmp").rename(path)
