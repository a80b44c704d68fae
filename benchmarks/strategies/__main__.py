"""Compare every fine-tuning strategy with the plain two-stage default; a run that is done is never made again.

    python -m benchmarks.strategies [--workers 2] [--budget-minutes 60] [--only REGEX] [--sets ...] [--seeds ...]
    python -m benchmarks.strategies --table      # write the table of what is done into docs/strategies.md

Runs come seed by seed, so that the table is whole, if uncertain, from the first seed on. Stop it at any time: a run
that was cut off is made again.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

from benchmarks.packages import SetMissingError
from benchmarks.strategies.results import Outcome, Task, append_result, code_digest, only_writer, pending, read_results
from benchmarks.strategies.rows import ROWS
from benchmarks.strategies.runner import run_all
from benchmarks.strategies.sets import data_section, set_names
from benchmarks.strategies.table import write_table

PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"


def main() -> None:
    """Run what the command line asks for."""
    # An exit that unwinds ends the worker processes, too.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    arguments = _arguments()
    results_file = arguments.work / "results.jsonl"
    tasks = _tasks(arguments)
    if arguments.list:
        done = read_results(results_file)
        for task in tasks:
            state = "" if task not in done else done[task].error or f"{done[task].accuracy:.3f}"
            print(f"{task.seed}  {task.set_name:<17} {task.row:<28} {state}")
        return
    if not arguments.table:
        with only_writer(results_file):
            _measure(tasks, results_file, arguments)
    if arguments.table or arguments.write:
        write_table(read_results(results_file), PAGE)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--work", type=Path, default=cache / "imagetune-strategies", help="images and results")
    parser.add_argument("--workers", type=int, default=2, help="processes, a core each")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="rows whose name has this pattern")
    parser.add_argument("--sets", nargs="+", choices=set_names(), default=set_names())
    parser.add_argument("--seeds", nargs="+", type=int, default=(1, 2, 3))
    parser.add_argument("--budget-minutes", type=float, help="begin no run after this time")
    parser.add_argument("--retry-failed", action="store_true", help="make runs again that failed")
    parser.add_argument("--list", action="store_true", help="list the runs and what is done, then stop")
    parser.add_argument("--table", action="store_true", help="write the table of what is done, run nothing")
    parser.add_argument("--write", action="store_true", help="write the table after the runs")
    return parser.parse_args()


def _tasks(arguments: argparse.Namespace) -> list[Task]:
    """Return the runs seed by seed, within a seed row by row, so that a row is soon there on every set."""
    return [
        Task(seed, name, row.name)
        for seed in arguments.seeds
        for row in ROWS
        if arguments.only.search(row.name)
        for name in row.sets
        if name in arguments.sets
    ]


def _measure(tasks: list[Task], results_file: Path, arguments: argparse.Namespace) -> None:
    work = arguments.work.absolute()
    shutil.rmtree(work / "runs", ignore_errors=True)
    todo = _possible(pending(tasks, read_results(results_file), retry_failed=arguments.retry_failed), work)
    print(f"{len(todo)} of {len(tasks)} runs to make; results in {results_file}", flush=True)
    minutes = arguments.budget_minutes
    started = time.monotonic()
    made = 0

    def report(outcome: Outcome) -> None:
        nonlocal made
        made += 1
        append_result(results_file, outcome)
        left = (time.monotonic() - started) / made * (len(todo) - made) / 60
        metric = outcome.error or f"{outcome.accuracy:.3f}  {outcome.cpu_seconds:5.1f} s"
        where = f"seed {outcome.seed}  {outcome.set_name:<17} {outcome.row:<28}"
        print(f"{made}/{len(todo)}  {where} {metric}  ({left:.0f} min left)", flush=True)

    deadline = None if minutes is None else started + 60 * minutes
    run_all(todo, work, workers=arguments.workers, deadline=deadline, code=code_digest(), report=report)


def _possible(tasks: list[Task], work: Path) -> list[Task]:
    """Write the images of all runs, and leave out the sets that can't be had here."""
    missing: set[str] = set()
    for name, seed in dict.fromkeys((task.set_name, task.seed) for task in tasks):
        if name in missing:
            continue
        try:
            data_section(name, seed, work)
        except SetMissingError as error:
            print(f"{name}: left out: {error}", flush=True)
            missing.add(name)
    return [task for task in tasks if task.set_name not in missing]


if __name__ == "__main__":
    main()
