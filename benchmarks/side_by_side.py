"""Measurements of several ways to do the same work, in turn for several rounds; shared by all benchmarks.

A benchmark gives each way a name and a callable that does the work once and returns its metric:

    comparison = measure_in_turn({"plain": timed(plain), "ours": timed(ours)}, rounds=5)
    print(machine_line())
    print(markdown_table(comparison, base="plain"))

Run the scripts from the repository's root as modules: `python -m benchmarks.NAME`.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from imagetune.core.processes import count_usable_cores

PACKAGES = ("keras", "tensorflow", "jax", "numpy", "opencv-python-headless", "albumentations", "grain")
Measure = Callable[[], float]


@dataclass(frozen=True)
class Spread:
    """The median of several rounds, with the least and the most."""

    median: float
    least: float
    most: float

    def __str__(self) -> str:
        """Return the three as `2.10 (1.90 to 2.30)`."""
        return f"{show(self.median)} ({show(self.least)} to {show(self.most)})"


@dataclass(frozen=True)
class Comparison:
    """The measurements of each side, one for each round.

    Attributes:
        metrics: The measurements by the side's name, as many as there were rounds.
        unit: The unit of the measurements.
        lower_is_better: True for seconds and bytes, False for images a second.
    """

    metrics: dict[str, list[float]]
    unit: str = "s"
    lower_is_better: bool = True

    def spread(self, side: str) -> Spread:
        """Return the median, the least and the most of a side's rounds."""
        found = self.metrics[side]
        return Spread(statistics.median(found), min(found), max(found))

    def ratio(self, side: str, base: str) -> Spread:
        """Return how many times better ``side`` is than ``base``.

        The middle is the ratio of the medians; least and most are those of the ratios within each round, in which both
        had the same neighbours on the machine.
        """
        better, worse = (base, side) if self.lower_is_better else (side, base)
        rounds = [one / other for one, other in zip(self.metrics[better], self.metrics[worse], strict=True)]
        return Spread(self.spread(better).median / self.spread(worse).median, min(rounds), max(rounds))

    def as_json(self, base: str) -> dict[str, Any]:
        """Return every measurement, and the ratios to ``base``, as JSON values."""
        ratios = {side: vars(self.ratio(side, base)) for side in self.metrics}
        return {"unit": self.unit, "base": base, "metrics": self.metrics, "times_better": ratios}


@dataclass(frozen=True)
class Finished:
    """A process that ended well: its seconds of the clock from start to end, and what it printed."""

    seconds: float
    output: str


def measure_in_turn(
    sides: Mapping[str, Measure],
    *,
    rounds: int,
    warmups: int = 0,
    unit: str = "s",
    lower_is_better: bool = True,
) -> Comparison:
    """Measure every side once a round; every other round goes backwards, so that none is always the first.

    Args:
        sides: For each side a function that does the work once and returns its measurement.
        rounds: Number of measurements of each side.
        warmups: Rounds before them that don't count.
        unit: The unit of the measurements.
        lower_is_better: True for seconds and bytes, False for images a second.
    """
    metrics: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warmups, rounds):
        names = list(sides) if number % 2 == 0 else list(reversed(list(sides)))
        for name in names:
            metric = sides[name]()
            if number < 0:
                continue
            print(f"  round {number + 1} of {rounds}: {name}: {show(metric)} {unit}", file=sys.stderr, flush=True)
            metrics[name].append(metric)
    return Comparison(metrics, unit, lower_is_better)


def timed(work: Callable[[], object]) -> Measure:
    """Return a measure: a function that does some work and returns its seconds."""

    def seconds() -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    return seconds


def timed_process(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Measure:
    """Return a measure of the seconds of a whole process, including the start of Python."""
    return lambda: run_process(command, env=env, cwd=cwd).seconds


def run_process(command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Finished:
    """Run a process to its end.

    Args:
        command: The program and its arguments.
        env: Added to this process's environment.
        cwd: Working folder.

    Raises:
        SystemExit: It failed; its last lines are the message.
    """
    started = time.perf_counter()
    ended = subprocess.run(
        command, env={**os.environ, **(env or {})}, cwd=cwd, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - started
    if ended.returncode:
        last = "\n".join((ended.stdout + ended.stderr).splitlines()[-20:])
        raise SystemExit(f"{' '.join(command)}\nended with {ended.returncode}:\n{last}")
    return Finished(seconds, ended.stdout)


def markdown_table(comparison: Comparison, *, base: str) -> str:
    """Return a row a side: the median of its rounds, least and most, and how many times better than ``base``."""
    rounds = len(comparison.metrics[base])
    lines = [
        f"| | {comparison.unit}, median of {rounds} | least to most | times better than {base} | in each round |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for side in comparison.metrics:
        found, ratio = comparison.spread(side), comparison.ratio(side, base)
        cells = [side, show(found.median), f"{show(found.least)} to {show(found.most)}"]
        cells += [show(ratio.median), f"{show(ratio.least)} to {show(ratio.most)}"] if side != base else ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine_line() -> str:
    """Return cores, architecture, memory, system, Python and the versions that matter, in one line."""
    memory = psutil.virtual_memory().total / 2**30
    machine = f"{count_usable_cores()} cores ({platform.machine()}), {memory:.0f} GiB, {platform.system()}"
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return ", ".join(filter(None, [machine, f"Python {platform.python_version()}", *package_versions(), load]))


def package_versions(packages: Sequence[str] = PACKAGES) -> list[str]:
    """Return name and version of those packages that are installed."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


def save_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write measurements with the machine that they are from; nothing without a path."""
    if path is not None:
        document = {"machine": machine_line(), "when": time.strftime("%Y-%m-%d %H:%M"), **content}
        path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def show(metric: float) -> str:
    """Return a measurement with three significant digits."""
    if abs(metric) >= 100:
        return f"{metric:,.0f}"
    return f"{metric:.3g}" if abs(metric) < 1 else f"{metric:.{1 if abs(metric) >= 10 else 2}f}"
