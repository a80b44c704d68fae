"""The Markdown table: means over seeds, and paired differences to the baseline with intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from benchmarks.strategies.results import Outcome, Task
from benchmarks.strategies.rows import (
    BALANCED_SETS,
    EPOCHS,
    IMBALANCE_ROWS,
    LONG_TAIL_SETS,
    ROWS,
    Row,
    describe_changes,
    find_baseline,
)
from benchmarks.strategies.runner import BATCH
from imagetune.core.files import write_text

BEGIN, END = "<!-- strategies table: begin -->", "<!-- strategies table: end -->"
CONFIDENCE = 0.95
Results = Mapping[Task, Outcome]


@dataclass(frozen=True)
class Comparison:
    """A row against its baseline, over the runs that both have.

    Attributes:
        differences: Test metric of the row minus that of the baseline, in points, a pair each.
        log_loss: Mean difference of the test log loss in nats; below zero is better.
        time_ratio: Geometric mean over the sets of the ratio of processor seconds, each the least of its seeds: other
            work on the machine only ever adds to them.
    """

    differences: tuple[float, ...]
    log_loss: float
    time_ratio: float

    @property
    def mean(self) -> float:
        """Mean difference in points."""
        return statistics.fmean(self.differences)

    @property
    def half_width(self) -> float | None:
        """Half the width of the t interval of the mean; None for fewer than two pairs."""
        pairs = len(self.differences)
        if pairs < 2:
            return None
        quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, pairs - 1))
        return quantile * statistics.stdev(self.differences) / math.sqrt(pairs)

    @property
    def score(self) -> str:
        """Pairs won, tied and lost."""
        tied = sum(abs(difference) < 1e-9 for difference in self.differences)
        won = sum(difference >= 1e-9 for difference in self.differences)
        return f"{won}/{tied}/{len(self.differences) - tied - won}"


def compare(row: Row, results: Results) -> Comparison | None:
    """Return a row's comparison; None while there is no pair."""
    pairs = []
    for task, outcome in results.items():
        if task.row != row.name or task.set_name not in row.sets or outcome.error:
            continue
        other = results.get(Task(task.seed, task.set_name, find_baseline(row)))
        if other is not None and not other.error:
            pairs.append((outcome, other))
    if not pairs:
        return None
    differences = tuple(100 * (metric(row, one) - metric(row, other)) for one, other in pairs)
    seconds: dict[str, list[tuple[float, float]]] = {}
    for one, other in pairs:
        seconds.setdefault(one.set_name, []).append((one.cpu_seconds, other.cpu_seconds))
    ratios = [min(own for own, _ in of_set) / min(base for _, base in of_set) for of_set in seconds.values()]
    losses = [(one.log_loss or 0.0) - (other.log_loss or 0.0) for one, other in pairs]
    return Comparison(differences, statistics.fmean(losses), statistics.geometric_mean(ratios))


def metric(row: Row, outcome: Outcome) -> float:
    """Return the metric a row is judged by: accuracy, and balanced accuracy where classes are rare."""
    value = outcome.balanced_accuracy if row in IMBALANCE_ROWS else outcome.accuracy
    if value is None:
        raise ValueError(f"{outcome.task} has no metrics")
    return value


def table(results: Results) -> str:
    """Return both tables with what was measured, where and when."""
    balanced = [row for row in ROWS if row not in IMBALANCE_ROWS]
    good = [outcome for outcome in results.values() if not outcome.error]
    parts = [
        _origin(good),
        _lines(balanced, BALANCED_SETS, results),
        "Images of unequal frequency (digits, 50 training images of the most frequent class and 5 of the rarest; "
        "balanced accuracy of a test set with equally many of all classes):",
        _lines(IMBALANCE_ROWS, LONG_TAIL_SETS, results),
        *_failures(results),
    ]
    return "\n\n".join(parts)


def write_table(results: Results, page: Path) -> None:
    """Replace what stands between the markers of a page.

    Raises:
        SystemExit: It has no markers.
    """
    text = page.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{page}: has no lines {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(page, f"{before}{BEGIN}\n\n{table(results)}\n\n{END}{after}")


def _lines(rows: Sequence[Row], sets: Sequence[str], results: Results) -> str:
    titles = ["strategy", "recipe", *sets, "difference, points (95%)", "won/tied/lost", "log loss", "time"]
    lines = [f"| {' | '.join(titles)} |", "| --- | --- |" + " ---: |" * (len(titles) - 2)]
    group = ""
    for row in rows:
        if row.group != group and len(rows) > len(IMBALANCE_ROWS):
            group = row.group
            lines.append(f"| *{group}* |" + " |" * (len(titles) - 1))
        lines.append(f"| {' | '.join(_cells(row, sets, results))} |")
    return "\n".join(lines)


def _cells(row: Row, sets: Sequence[str], results: Results) -> list[str]:
    cells = [row.name, describe_changes(row), *(_mean(row, name, results) for name in sets)]
    found = compare(row, results)
    if found is None:
        return [*cells, "", "", "", ""]
    if row.name == find_baseline(row):
        return [*cells, "baseline", "", "", "1.00"]
    spread = "" if found.half_width is None else f" ± {found.half_width:.1f}"
    clear = found.half_width is not None and abs(found.mean) > found.half_width
    difference = f"{found.mean:+.1f}{spread}"
    rest = [found.score, f"{found.log_loss:+.3f}", f"{found.time_ratio:.2f}"]
    return [*cells, f"**{difference}**" if clear else difference, *rest]


def _mean(row: Row, set_name: str, results: Results) -> str:
    values = [
        metric(row, outcome)
        for task, outcome in results.items()
        if task.row == row.name and task.set_name == set_name and not outcome.error
    ]
    return f"{statistics.fmean(values):.3f}" if values else ""


def _origin(outcomes: Sequence[Outcome]) -> str:
    def several(values: set[str]) -> str:
        return "; ".join(sorted(values)) or "nothing measured yet"

    seeds = sorted({outcome.seed for outcome in outcomes})
    hours = sum(outcome.seconds for outcome in outcomes) / 3600
    seconds = [outcome.cpu_seconds for task, outcome in _baselines(outcomes)]
    baseline = f"{statistics.fmean(seconds):.0f} s a run of the baseline" if seconds else "no baseline yet"
    codes = len({outcome.code for outcome in outcomes})
    mixed = f", from {codes} states of the code" if codes > 1 else ""
    return (
        f"`make strategies`: {len(outcomes)} runs{mixed}, seeds {', '.join(map(str, seeds))}; {EPOCHS} epochs in all, "
        f"batches of {BATCH}; {hours:.1f} core hours, {baseline}, a run on one core. "
        f"Machine: {several({outcome.machine for outcome in outcomes})}; "
        f"{several({outcome.versions for outcome in outcomes})}; {several({outcome.when for outcome in outcomes})}."
    )


def _baselines(outcomes: Sequence[Outcome]) -> list[tuple[Task, Outcome]]:
    return [(outcome.task, outcome) for outcome in outcomes if outcome.row == ROWS[0].name]


def _failures(results: Results) -> list[str]:
    failed = [f"{task.row} on {task.set_name}, seed {task.seed}" for task, one in results.items() if one.error]
    return [f"Failed: {'; '.join(sorted(failed))}."] if failed else []
