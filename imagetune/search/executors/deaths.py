"""Why a process died that gave no prediction."""

from __future__ import annotations

import signal
from pathlib import Path

_TAIL_BYTES = 4096
_LONGEST = 200


def memory_kills(
    counters: tuple[Path, ...] = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")),
) -> int | None:
    """Return how many processes the kernel has killed for want of memory so far; None where it doesn't count.

    Args:
        counters: Files of a name and a number a line, in which ``oom_kill`` counts: of the machine, of the container.
    """
    found = []
    for path in counters:
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        found += [int(value) for name, _, value in (line.partition(" ") for line in lines) if name == "oom_kill"]
    return sum(found) if found else None


def reason_of(exit_code: int | None, log: Path, *, for_memory: bool) -> str:
    """Return in one line why a process ended.

    Args:
        exit_code: The negative number of a signal, or what it exited with; None if that isn't known.
        log: What it has printed.
        for_memory: Whether the kernel may have killed it to free memory.
    """
    if exit_code is not None and exit_code < 0:
        name = _signal_name(-exit_code)
        if name == "SIGKILL" and for_memory:
            return "resources: killed, probably out of memory; lower train.batch_size or search.parallel"
        return f"internal: its process was killed by {name}"
    last = last_line(log)
    return f"internal: its process ended with exit code {exit_code}" + (f": {last}" if last else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def last_line(log: Path) -> str:
    """Return what was printed last, empty where nothing was."""
    try:
        lines = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").split("\n")
    except OSError:
        return ""
    printed = [" ".join(line.split()) for line in lines if line.strip()]
    return printed[-1][:_LONGEST] if printed else ""
