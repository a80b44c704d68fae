"""Reasons why a trial's process died without a result: a signal, an exit code, memory."""

from __future__ import annotations

import signal
from pathlib import Path

_TAIL_BYTES = 4096
_LONGEST = 200


def memory_kills(
    counters: tuple[Path, ...] = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events")),
) -> int | None:
    """Return how many processes the kernel's out-of-memory killer has killed so far; None where it doesn't count.

    Args:
        counters: Files with lines of a name and a number, of which ``oom_kill`` counts: machine's and container's.
    """
    found = []
    for path in counters:
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        # Only a rise is looked for, so that a kill which both files count does no harm.
        found += [int(value) for name, _, value in (line.partition(" ") for line in lines) if name == "oom_kill"]
    return sum(found) if found else None


def describe_death(exit_code: int | None, log: Path, *, for_memory: bool) -> str:
    """Return in one line why a process ended without a result.

    Args:
        exit_code: Its exit code, or the negative number of the signal that killed it; None if unknown.
        log: File with its output.
        for_memory: Whether the kernel may have killed it for want of memory.
    """
    if exit_code is not None and exit_code < 0:
        name = _signal_name(-exit_code)
        # The kernel kills by this signal alone, and leaves no message in the log.
        if name == "SIGKILL" and for_memory:
            return "resources: killed, probably out of memory; lower train.batch_size or search.parallel"
        return f"internal: its process was killed by {name}"
    last = read_last_line(log)
    return f"internal: its process ended with exit code {exit_code}" + (f": {last}" if last else "")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def read_last_line(log: Path) -> str:
    """Return the last line of a process's output, shortened; empty where there is none."""
    try:
        # The cut may fall inside a character, and libraries may print bytes that are no UTF-8.
        lines = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").split("\n")
    except OSError:
        return ""
    printed = [" ".join(line.split()) for line in lines if line.strip()]
    return printed[-1][:_LONGEST] if printed else ""
