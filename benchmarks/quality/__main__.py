"""Measure how good the models of each row are on image sets of many kinds; a run that is done is never made again.

    python -m benchmarks.quality [--only REGEX] [--sets NAME ...] [--half choose] [--splits 1 2 3] [--budget-minutes 60]
    python -m benchmarks.quality --list          # the runs and what is done
    python -m benchmarks.quality --table         # write the tables of what is done into docs/quality.md

Stop it at any time: a run that was cut off is made again. A row more is a line in rows.py, a set more one in
sets/__init__.py.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path

from benchmarks.packages import SetMissingError
from benchmarks.quality.results import Outcome, Task, append_result, pending, read_results
from benchmarks.quality.rows import BASELINE, ROWS, find_row
from benchmarks.quality.runner import code_of, run_task
from benchmarks.quality.sets import SETS, find_set
from benchmarks.quality.table import write_tables
from benchmarks.strategies.results import only_writer

PAGE = Path(__file__).parents[2] / "docs" / "quality.md"
MEASURED = Path(__file__).parent / "measured.jsonl"


def main() -> None:
    """Run what the command line asks for."""
    # An exit that unwinds ends the process of the run, too.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    arguments = _arguments()
    tasks = _tasks(arguments)
    if arguments.list:
        _list(tasks, arguments)
    elif arguments.table:
        write_tables(read_results(arguments.results), PAGE)
    else:
        arguments.work.mkdir(parents=True, exist_ok=True)
        with only_writer(arguments.work / "results"):
            _measure(tasks, arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    names = [images.name for images in SETS]
    parser.add_argument("--work", type=Path, default=cache / "imagetune-quality", help="packages, images and logs")
    parser.add_argument("--results", type=Path, default=MEASURED, help="file of results, appended to")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="rows whose name has this pattern")
    parser.add_argument("--sets", nargs="+", choices=names, default=names)
    parser.add_argument("--half", choices=("choose", "judge"), help="only the sets of this half")
    parser.add_argument("--splits", nargs="+", type=int, default=(1, 2, 3), help="seeds of the splits")
    parser.add_argument("--repeats", type=int, default=99, help="trainings a split at most, where a row has several")
    parser.add_argument("--budget-minutes", type=float, help="begin no run after this time")
    parser.add_argument("--fresh", action="store_true", help="make runs again that other states of the code made")
    parser.add_argument("--retry-failed", action="store_true", help="make runs again that failed")
    parser.add_argument("--list", action="store_true", help="list the runs and what is done, then stop")
    parser.add_argument("--table", action="store_true", help="write the tables of what is done, run nothing")
    return parser.parse_args()


def _tasks(arguments: argparse.Namespace) -> list[Task]:
    """Return the runs split by split, and within a split set by set, so that rows can soon be compared."""
    return [
        Task(name, split, row.name, repeat)
        for split in arguments.splits
        for repeat in range(1, 1 + min(arguments.repeats, max(row.repeats for row in ROWS)))
        for name in arguments.sets
        if arguments.half in (None, find_set(name).half)
        for row in ROWS
        if arguments.only.search(row.name) and repeat <= row.repeats
    ]


def _list(tasks: list[Task], arguments: argparse.Namespace) -> None:
    done = read_results(arguments.results)
    for task in tasks:
        state = "" if task not in done else done[task].error or f"{done[task].accuracy:.3f} {done[task].seconds:.0f} s"
        print(f"{task.set_name:<15} split {task.split}  {task.row:<32} {task.repeat}  {state}")


def _measure(tasks: list[Task], arguments: argparse.Namespace) -> None:
    done = read_results(arguments.results)
    todo = [task for task in tasks if _is_pending(task, done, arguments)]
    print(f"{len(todo)} of {len(tasks)} runs to make; results in {arguments.results}", flush=True)
    started, missing = time.monotonic(), set[str]()
    for number, task in enumerate(todo, start=1):
        if arguments.budget_minutes and time.monotonic() - started > 60 * arguments.budget_minutes:
            print("the time is over", flush=True)
            return
        if task.set_name in missing:
            continue
        baseline = done.get(Task(task.set_name, task.split, BASELINE))
        if baseline is None and find_row(task.row).kind == "auto":
            print(f"{task.set_name} split {task.split}: {task.row} is left out until {BASELINE} has run", flush=True)
            continue
        try:
            outcome = run_task(task, arguments.work, baseline)
        except SetMissingError as error:
            print(f"{task.set_name}: left out: {error}", flush=True)
            missing.add(task.set_name)
            continue
        append_result(arguments.results, outcome)
        done[task] = outcome
        metric = outcome.error or f"{outcome.accuracy:.3f}  {outcome.seconds:5.0f} s"
        print(f"{number}/{len(todo)}  {task.set_name:<15} split {task.split}  {task.row:<32} {metric}", flush=True)


def _is_pending(task: Task, done: dict[Task, Outcome], arguments: argparse.Namespace) -> bool:
    code = code_of(find_row(task.row)) if arguments.fresh else ""
    return bool(pending([task], done, retry_failed=arguments.retry_failed, code=code))


if __name__ == "__main__":
    main()
