"""A process that has imported the program once, and runs each command line it is asked for in a watched fork.

It is started by `keeper.py`, reads a line of JSON for each command and answers with one. A command that needs a Python
of its own is started as one, and watched the same way.
"""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

LOOK_SECONDS = 0.02
LAST_WORDS_SECONDS = 3.0


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    # What the imports print must not look like an answer.
    os.dup2(2, 1)
    _import_program()
    print(json.dumps({"ready": True}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(watch(json.loads(line))), file=answers, flush=True)


def _import_program() -> None:
    import tiny_backbones  # noqa: F401

    from imagetune.core.environment import settle_process_environment
    from imagetune.core.quiet import import_keras_quietly

    settle_process_environment()
    with import_keras_quietly():
        import imagetune.api.functions
        import imagetune.cli.main
        import imagetune.commands.fit
        import imagetune.commands.predict_table
        import imagetune.tracking.tracker  # noqa: F401


def watch(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command line and return its code, times, peak memory, whether it hung and what it left running."""
    before = 0.0 if request["fresh"] else psutil.Process().memory_info().rss
    started = time.monotonic()
    pid = _start(request)
    signals = sorted(request["signals"])
    peak, hung = 0.0, False
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            break
        passed = time.monotonic() - started
        while signals and signals[0][0] <= passed:
            os.kill(pid, signals.pop(0)[1])
        # To look takes time of its own, which a caller without a limit is spared.
        if request["megabytes"] < math.inf:
            peak = max(peak, _own_bytes(pid))
        hung = hung or passed > request["wall_seconds"]
        # Far beyond what is allowed it is ended, before this machine's memory is.
        if hung or peak > request["megabytes"] * 1e6:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        time.sleep(LOOK_SECONDS)
    wall = time.monotonic() - started
    # Looks can miss a short peak; the kernel remembers it, for the first process and in whole pages of its own.
    peak = max(peak, usage.ru_maxrss * 1024 - before)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": wall,
        "megabytes": peak / 1e6,
        "hung": hung,
        "survivors": _end_survivors(pid),
    }


def _start(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _prepare(request)
        if request["fresh"]:
            command = [sys.executable, "-m", "imagetune", *request["arguments"]]
            os.execve(sys.executable, command, request["environment"])
        os.environ.clear()
        os.environ.update(request["environment"])
        code = _run(request["arguments"])
    finally:
        os._exit(code)


def _prepare(request: dict[str, Any]) -> None:
    os.setsid()
    os.chdir(request["folder"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(os.open(request["stdout"], os.O_WRONLY | os.O_CREAT, 0o644), 1)
    os.dup2(os.open(request["stderr"], os.O_WRONLY | os.O_CREAT, 0o644), 2)
    for name, value in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    for descriptor in request["closed"]:
        os.close(descriptor)


def _run(arguments: list[str]) -> int:
    from tiny_backbones import tiny_backbones

    from imagetune.cli.main import main

    sys.argv = ["imagetune", *arguments]
    try:
        # Only here: what starts TensorFlow's threads before the fork leaves it without them, and waiting for them.
        with tiny_backbones():
            main()
    except SystemExit as end:
        code = end.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)


def _own_bytes(pid: int) -> float:
    """Return the memory that a process and its children don't share with others, in bytes."""
    total = 0.0
    with suppress(psutil.Error, OSError):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.Error, OSError):
                total += _private_bytes(one.pid)
    return total


def _private_bytes(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024.0 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _end_survivors(session: int) -> int:
    """Return how many processes of a session run on some seconds after its end, and end them."""
    until = time.monotonic() + LAST_WORDS_SECONDS
    while left := [one for one in psutil.process_iter() if _session(one) == session]:
        if time.monotonic() > until:
            for one in left:
                with suppress(psutil.Error):
                    one.kill()
            return len(left)
        time.sleep(0.1)
    return 0


def _session(process: psutil.Process) -> int:
    with suppress(psutil.Error, OSError):
        if process.status() != psutil.STATUS_ZOMBIE:
            return os.getsid(process.pid)
    return -1


if __name__ == "__main__":
    main()
