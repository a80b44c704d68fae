"""The Markdown tables of docs/quality.md: the sets, and what was measured on each half of them."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.quality.paired import Comparison, Results, average_repeats, compare
from benchmarks.quality.results import Outcome
from benchmarks.quality.rows import BASELINE, OURS, PEERS, ROWS, Row
from benchmarks.quality.sets import SETS
from benchmarks.quality.sets.build import Half
from imagetune.core.files import write_text

HALVES: dict[Half, str] = {"choose": "Sets for choosing defaults", "judge": "Sets for judging them"}


def markers(name: str) -> tuple[str, str]:
    """Return the lines between which a table stands."""
    return f"<!-- quality {name}: begin -->", f"<!-- quality {name}: end -->"


def write_tables(results: Results, page: Path) -> None:
    """Replace what stands between the markers of a page.

    Raises:
        SystemExit: It lacks markers.
    """
    text = page.read_text(encoding="utf-8")
    for name, made in (("sets", sets_table()), ("results", results_tables(results))):
        begin, end = markers(name)
        if begin not in text or end not in text:
            raise SystemExit(f"{page}: has no lines {begin} and {end}")
        text = f"{text.split(begin)[0]}{begin}\n\n{made}\n\n{end}{text.split(end)[1]}"
    write_text(page, text)


def sets_table() -> str:
    """Return the table of the sets."""
    lines = ["| set | half | kind | images | classes | a label is | package | licence |", "| --- " * 8 + "|"]
    for one in sorted(SETS, key=lambda one: (one.half, one.kind, one.images)):
        packages = ", ".join(f"`{name}`" for name in one.packages) or "shipped"
        cells = (
            f"`{one.name}`",
            one.half,
            one.kind,
            f"{one.images:,}",
            one.classes,
            f"the {one.task}",
            packages,
            one.licence,
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def results_tables(results: Results) -> str:
    """Return the tables of both halves with what was measured, where and when, and what failed."""
    parts = [describe_origin([outcome for outcome in results.values() if not outcome.error])]
    for half, title in HALVES.items():
        parts += [f"### {title}", results_table(results, [one.name for one in SETS if one.half == half])]
    failed = sorted(f"{task.row} on {task.set_name}, split {task.split}" for task, one in results.items() if one.error)
    return "\n\n".join([*parts, *([f"Failed: {'; '.join(failed)}."] if failed else [])])


def results_table(results: Results, sets: Sequence[str]) -> str:
    """Return the table of some sets: mean test accuracy of each, and the comparison with the plain script."""
    titles = [
        "row",
        *sets,
        "sets (splits)",
        "difference, points (95%)",
        "balanced",
        "log loss",
        "log loss lower",
        "worst set",
    ]
    titles.append("time")
    lines = [f"| {' | '.join(titles)} |", "| --- |" + " ---: |" * (len(titles) - 1)]
    for group in (PEERS, OURS):
        rows = [row for row in ROWS if row.group == group]
        lines.append(f"| *{group}* |" + " |" * (len(titles) - 1))
        lines += [f"| {' | '.join(_cells(row, results, sets))} |" for row in rows]
    return "\n".join(lines)


def _cells(row: Row, results: Results, sets: Sequence[str]) -> list[str]:
    means = [_mean_accuracy(row.name, results, name) for name in sets]
    found = compare(row.name, results, sets)
    if found is None:
        return [row.name, *means, *[""] * 7]
    counted = f"{len(found.sets)} ({sum(one.splits for one in found.sets.values())})"
    if row.name == BASELINE:
        return [row.name, *means, counted, "baseline", "", "", "", "", "1.00"]
    return [row.name, *means, counted, *_difference_cells(found)]


def _difference_cells(found: Comparison) -> list[str]:
    half_width = found.half_width
    difference = f"{found.mean:+.1f}" + ("" if half_width is None else f" ± {half_width:.1f}")
    if half_width is not None and abs(found.mean) > half_width:
        difference = f"**{difference}**"
    losses = found.log_losses
    lower = f"{sum(loss < 0 for loss in losses)} of {len(losses)}" if losses else ""
    worst = f"{found.worst[0]} {found.worst[1]:+.1f}"
    loss = f"{statistics.fmean(losses):+.3f}" if losses else ""
    return [difference, f"{found.balanced_mean:+.1f}", loss, lower, worst, f"{found.time_ratio:.2f}"]


def _mean_accuracy(row: str, results: Results, name: str) -> str:
    splits = average_repeats(row, results, name)
    return f"{statistics.fmean(one.accuracy for one in splits.values()):.3f}" if splits else ""


def describe_origin(outcomes: Sequence[Outcome]) -> str:
    """Return a sentence on how many runs there are, of which code, where and when they were made."""
    if not outcomes:
        return "Nothing measured yet."

    def several(name: str) -> str:
        return "; ".join(sorted({str(getattr(outcome, name)) for outcome in outcomes}))

    hours = sum(outcome.cpu_seconds for outcome in outcomes) / 3600
    codes = len({outcome.code for outcome in outcomes})
    return (
        f"`python -m benchmarks.quality`: {len(outcomes)} runs, {hours:.1f} processor hours, {codes} states of the "
        f"code of rows. Machine: {several('machine')}; {several('versions')}; {several('when')}."
    )
