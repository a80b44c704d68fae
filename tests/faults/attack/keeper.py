"""Runs cases in a watcher process and says what was wrong with how they ended."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.attack.case import Case, Outcome, Room

HERE = Path(__file__).resolve()
PROJECT = HERE.parents[3]
BAIT = b"nothing may change this\n"
FAKE_PROGRAMS = ("gs", "gswin64c", "convert", "magick", "ffmpeg", "xdg-open", "notify-send")
# What an idle command takes for itself: seconds of a core, and megabytes above a process that has imported everything.
IDLE = {"fit": (12.0, 350.0), "search": (30.0, 900.0), "auto": (30.0, 900.0), "evaluate": (6.0, 300.0)}
IDLE_OTHER = (3.0, 200.0)
# A Python of its own imports everything first.
FRESH = (9.0, 650.0)


@dataclass
class Watcher:
    """A running watcher process."""

    process: subprocess.Popen[str]

    @classmethod
    def start(cls) -> Watcher:
        """Start one, and return it when it has imported the program."""
        environment = {
            **os.environ,
            "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests/helpers'}",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        command = [sys.executable, "-m", "tests.faults.attack.watcher"]
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        watcher = cls(process)
        assert watcher._read() == {"ready": True}
        return watcher

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Run one command line; the keys are those of `watcher.watch`."""
        assert self.process.stdin
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the watcher process has ended: its last words are on standard error"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def stop(self) -> None:
        """End it."""
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(30)


def meet(case: Case, root: Path, shared: Path, watcher: Watcher) -> tuple[Outcome, list[str]]:
    """Run a case in an empty folder and return its outcome with what is wrong with it, which should be nothing."""
    room = _furnish(root, shared)
    with ExitStack() as stack:
        if case.during:
            stack.enter_context(case.during(room))
        arguments = [os.fsdecode(argument) for argument in case.command(room)]
        before = dict(_contents(room.input)), dict(_contents(room.outside))
        outcome = _read_outcome(watcher.ask(_request(case, room, arguments)), room)
    problems = list(_find_problems(case, outcome, arguments))
    if room.canary.exists():
        problems.append(f"something from the input was run: {room.canary.read_text()!r}")
    if before != (dict(_contents(room.input)), dict(_contents(room.outside))):
        problems.append("files outside the working folder were changed")
    if case.secret:
        problems += _find_secret(case.secret, outcome, room)
    if more := case.check(room, outcome):
        problems.append(more)
    return outcome, problems


def _furnish(root: Path, shared: Path) -> Room:
    room = Room(root, shared)
    for folder in (room.input, room.work, room.home, room.outside, root / "bin"):
        folder.mkdir(parents=True)
    (room.outside / "bait.txt").write_bytes(BAIT)
    for name in FAKE_PROGRAMS:
        program = root / "bin" / name
        program.write_text(f'#!/bin/sh\necho "$0 $*" >> {room.canary}\n')
        program.chmod(0o755)
    return room


def _request(case: Case, room: Room, arguments: list[str]) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTEST_"))}
    environment |= {
        "HOME": str(room.home),
        "PATH": f"{room.root / 'bin'}:{os.environ['PATH']}",
        "IMAGETUNE_CACHE": str(room.home / "cache"),
        "MPLCONFIGDIR": str(room.shared / "matplotlib"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": str(PROJECT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "COLUMNS": "100",
        **case.environment,
    }
    return {
        "arguments": arguments,
        "environment": environment,
        "folder": str(room.work),
        "stdout": case.stdout or str(room.root / "stdout"),
        "stderr": str(room.root / "stderr"),
        "limits": dict(case.limits),
        "signals": list(case.signals),
        "closed": list(case.closed),
        "fresh": case.fresh,
        "megabytes": case.megabytes + 2500,
        "wall_seconds": case.wall_seconds + (FRESH[0] if case.fresh else 0),
    }


def _read_outcome(answer: dict[str, Any], room: Room) -> Outcome:
    streams = [room.root / "stdout", room.root / "stderr"]
    output = b"".join(path.read_bytes() for path in streams if path.exists())
    return Outcome(output=output.decode("utf-8", "replace"), **answer)


def _find_problems(case: Case, outcome: Outcome, arguments: list[str]) -> Iterator[str]:
    cpu_idle, memory_idle = IDLE.get(arguments[0] if arguments else "", IDLE_OTHER)
    if case.fresh:
        cpu_idle, memory_idle = cpu_idle + FRESH[0], memory_idle + FRESH[1]
    if outcome.hung:
        yield f"it had not ended after {outcome.wall_seconds:.0f} s"
    elif outcome.code not in case.codes:
        yield f"exit code {outcome.code}, expected {sorted(case.codes)}"
    if outcome.cpu_seconds > cpu_idle + case.cpu_seconds:
        yield f"{outcome.cpu_seconds:.1f} s of a core, at most {cpu_idle + case.cpu_seconds:.1f} s expected"
    if outcome.megabytes > memory_idle + case.megabytes:
        yield f"{outcome.megabytes:.0f} MB, at most {memory_idle + case.megabytes:.0f} MB expected"
    if "Traceback (most recent call last)" in outcome.output:
        yield "a traceback"
    if outcome.survivors:
        yield f"{outcome.survivors} processes were left running"
    if case.says and not re.search(case.says, outcome.output):
        yield f"the output lacks {case.says!r}"


def _find_secret(secret: str, outcome: Outcome, room: Room) -> Iterator[str]:
    if secret in outcome.output:
        yield "the secret is on the screen"
    for folder in (room.work, room.home):
        for path in folder.rglob("*"):
            if path.is_file() and secret.encode() in path.read_bytes():
                yield f"the secret is in {path.relative_to(room.root)}"


def _contents(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each path below a folder with a hash of its content; of devices, pipes and huge files with their kind."""
    for parent, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(parent) / name
            state = path.lstat()
            readable = path.is_file() and not path.is_symlink() and state.st_size < 1 << 28
            digest = hashlib.sha256(path.read_bytes()).hexdigest() if readable else str((state.st_mode, state.st_size))
            yield str(path), digest
