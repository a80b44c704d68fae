"""The overview of a search: description, end, and the winner with its settings and test metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from statistics import stdev
from typing import Any

from imagetune.core import run_files
from imagetune.core.text import format_duration
from imagetune.recipe.metrics import METRICS
from imagetune.search.results.axes import Axis, format_value
from imagetune.search.results.clock import build_clock
from imagetune.search.results.reader import SearchFiles
from imagetune.search.results.verdict import group_failures, list_remarks

# The test has the validation's loss under the name log_loss.
_TESTED = {"loss": "log_loss"}
_ALSO = ("f1", "accuracy", "balanced_accuracy", "mean_average_precision", "mae", "r2")
_MAX_CARDS = 3


def list_search_facts(search: SearchFiles) -> Iterator[tuple[str, str]]:
    """Yield what the search is, as name and value."""
    yield "recipe", search.recipe.name
    yield "algorithm", search.algorithm
    yield (
        "objective",
        f"validation {search.objective_name}, {'lower' if search.direction == 'min' else 'higher'} is better",
    )
    yield "spaces", str(len(search.axes))
    yield "trials", _count_trials(search)
    ran = [result for result in search.results if result.seconds > 0]
    if ran:
        clock = build_clock(ran)
        yield "started", time.strftime("%Y-%m-%d %H:%M", time.localtime(min(result.began for result in ran)))
        yield "took", format_duration(clock.total)
    yield "folder", search.folder.name
    if search.tracking.get("run_id"):
        yield "MLflow run", str(search.tracking["run_id"])


def _count_trials(search: SearchFiles) -> str:
    """Return in words the number of trials by state."""
    counts = Counter(result.status for result in search.searched)
    parts = [f"{counts[state]} {state}" for state in ("completed", "stopped", "repeated", "failed") if counts[state]]
    if finals := sum(result.trial.phase == "final" for result in search.results):
        parts.append(f"{finals} {'fine-tuned' if search.algorithm == 'bakeoff' else 'of finalists with other seeds'}")
    if search.open:
        parts.append(f"{len(search.open)} not ended")
    return ", ".join(parts) or "none"


def describe_search_problem(search: SearchFiles) -> str:
    """Return in words how the search ended; an empty text where it finished."""
    state = search.status.get("state")
    if state in (None, "finished"):
        return ""
    if state == "running":
        return "The search is still in progress; this page shows the results so far."
    how = "was stopped" if state == "killed" else "failed"
    reason = f" The reason: {search.status['error'].rstrip('.')}." if search.status.get("error") else ""
    again = " The same command with --resume continues it; ended trials are kept." if state == "killed" else ""
    return f"The search {how}.{reason}{again}"


def view_winner(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return the winner with its settings and metrics; None where nothing has a metric."""
    if not search.candidates:
        return None
    winner = search.candidates[0]
    metrics = winner.objectives
    values = search.settings(winner.trial.values)
    return {
        "trial": winner.trial.trial_id,
        "mean": winner.mean,
        "deviation": stdev(metrics) if len(metrics) > 1 else None,
        "seeds": len(metrics),
        "settings": [_setting(search, axis, values) for axis in search.axes],
        "report": f"best/{run_files.REPORT}" if (search.folder / "best" / run_files.REPORT).is_file() else "",
        "tested": list(_tested(search)),
        "images": (search.evaluation.get("splits", {}).get("test") or {}).get("images"),
    }


def _setting(search: SearchFiles, axis: Axis, values: Mapping[str, Any]) -> dict[str, str]:
    offered = (
        ", ".join(format_value(value) for value in axis.values)
        if axis.is_choice
        else f"{format_value(axis.low)} to {format_value(axis.high)}"
        + (", on a log scale" if axis.kind == "log_uniform" else "")
    )
    text = format_value(values[axis.name]) if axis.name in values else "not used"
    return {"name": search.short[axis.name], "path": axis.name, "value": text, "offered": offered}


def _tested(search: SearchFiles) -> Iterator[dict[str, Any]]:
    """Yield the test metrics that matter here: the objective's own, and the usual ones."""
    metrics = (search.evaluation.get("splits", {}).get("test") or {}).get("metrics", {})
    names = dict.fromkeys([_TESTED.get(search.objective, search.objective), *_ALSO])
    for name in [name for name in names if (metrics.get(name) or {}).get("value") is not None][:_MAX_CARDS]:
        yield {"name": METRICS[name].in_words, **metrics[name]}


def view_overview(search: SearchFiles) -> dict[str, Any]:
    """Return everything that the head of the page shows."""
    return {
        "facts": list(list_search_facts(search)),
        "problem": describe_search_problem(search),
        "winner": view_winner(search),
        "remarks": list_remarks(search),
        "failures": group_failures(search.results),
        "trials": len(search.results),
    }
