"""The result of a search as lines of text: trials from best to worst, failures by reason, finalists, winner."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import stdev
from typing import TYPE_CHECKING

from imagetune.cli.render.bakeoff import format_bakeoff
from imagetune.cli.render.lines import format_line
from imagetune.cli.render.sweep import format_sweep
from imagetune.cli.render.trial_rows import Row, lay_out_rows
from imagetune.core import run_files
from imagetune.core.text import format_duration
from imagetune.recipe.document import NodePath
from imagetune.recipe.metrics import name_metric
from imagetune.recipe.problems import format_path
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import Value
from imagetune.search.proposers.bakeoff import select_compared
from imagetune.search.proposers.finalists import get_direction
from imagetune.search.results.axes import format_value, shorten_names
from imagetune.search.results.bakeoff import find_deciding_metric
from imagetune.search.results.decision import describe_decision

if TYPE_CHECKING:
    from imagetune.search.proposers.finalists import Candidate
    from imagetune.search.records.trial import TrialResult
    from imagetune.search.session import Search

# Rows of the table that fit on a screen; search.csv has all trials.
_MAX_TRIALS = 20
# Failures often differ in a size or a step alone, such as that of a full memory.
_NUMBER = re.compile(r"-?\d[\d.]*(e[+-]?\d+)?")
STATUS_WORDS = {"completed": "completed", "stopped": "stopped early", "repeated": "already known", "failed": "failed"}


def format_search(search: Search, *, recipe_file: Path, width: int | None = None) -> Iterator[str]:
    """Yield the trials, finalists, findings and the winner of a search.

    Args:
        search: The finished search.
        recipe_file: The recipe as the user named it, for the suggested commands.
        width: Columns that the table of trials may take; None for any number.
    """
    names, objective = name_settings(search.recipe, search.paths), search.recipe.search.objective
    yield format_line(
        "trials",
        f"{len(search.results)}: {format_status_counts(search.results)}; by {name_metric(objective)} on validation",
    )
    algorithm = search.recipe.search.algorithm
    # A sweep and a bake-off say themselves what they try.
    if search.exhausted and algorithm not in ("sweep", "bakeoff"):
        asked = f", of the {search.recipe.search.trials} trials that search.trials allows"
        rest = asked if (search.settings or 0) < search.recipe.search.trials else ""
        yield format_line("exhausted", f"all {search.settings} settings of the search spaces have been tried{rest}")
    judged = select_compared(search.results, algorithm)
    yield from _trials(judged, objective, names, smaller=get_direction(objective) == "min", width=width)
    yield from _failed(search.results)
    if algorithm != "sweep":  # all of whose settings have several seeds
        yield from _finalists(search.candidates, objective, names, width=width)
    yield from _finding_lines(search, recipe_file)
    winner = search.candidates[0]
    yield format_line("winner", f"trial {winner.trial.trial_id}, {format_metric(winner, objective)}")
    yield format_line("settings", format_settings(winner.trial.values, names))
    hours = search.recipe.search.budget.hours
    if hours is not None:
        yield format_line("time", f"{format_duration(search.seconds)} of {format_duration(3600 * hours)}")


def _finding_lines(search: Search, recipe_file: Path) -> Iterator[str]:
    objective, findings = search.recipe.search.objective, search.findings
    if findings.effects:
        yield from format_sweep(findings.effects, objective, get_direction(objective), str(recipe_file))
    if findings.backbones:
        yield from format_bakeoff(findings.backbones, objective, find_deciding_metric(search.recipe))
        yield format_line(
            "decision", describe_decision(findings.backbones, search.candidates[0].trial, search.recipe.search)
        )


def format_nothing_left(algorithm: str, *, exhausted: bool = False, hours: float | None = None) -> str:
    """Return a message for a finished search that was continued: which key gives it more trials.

    Args:
        algorithm: The value of ``search.algorithm``.
        exhausted: Whether every setting of the search spaces has been tried.
        hours: Its ``search.budget.hours``.
    """
    if hours is not None and not exhausted:
        return f"nothing was left to do in {format_duration(3600 * hours)}: raise search.budget.hours for more"
    if exhausted and algorithm in ("random", "grid", "bayesian"):
        return "nothing was left to do: more trials need more values in the search spaces"
    keys = {"sweep": "repeats", "bakeoff": "finalists", "hyperband": ""}
    key = keys.get(algorithm, "trials")
    more = f": raise search.{key} for more, with -o search.{key}=N" if key else ""
    return f"nothing was left to do{more}"


def format_files(folder: Path, best: Path) -> Iterator[str]:
    """Yield the paths of a search's files, of those that exist."""
    places = {
        "all trials": folder / "search.csv",
        "report": folder / run_files.REPORT,
        "best recipe": folder / "best.yaml",
        "best run": best / run_files.REPORT,
    }
    yield from (format_line(name, str(path)) for name, path in places.items() if path.exists())


def name_settings(recipe: Recipe, paths: Sequence[NodePath]) -> dict[NodePath, str]:
    """Return a short name for each searched setting by its path."""
    short = shorten_names([format_path(path) for path in paths], [stage.name for stage in recipe.train.stages])
    return {path: short[format_path(path)] for path in paths}


def format_settings(values: Mapping[NodePath, Value], names: Mapping[NodePath, str]) -> str:
    """Return names and values of settings as one line."""
    return ", ".join(f"{names.get(path, format_path(path))} {format_value(value)}" for path, value in values.items())


def format_setting_cells(values: Mapping[NodePath, Value], names: Mapping[NodePath, str]) -> tuple[str, ...]:
    """Return the value of each searched setting as text; empty where it isn't in force."""
    return tuple(format_value(values[path]) if path in values else "" for path in names)


def format_status_counts(results: Sequence[TrialResult]) -> str:
    """Return the number of trials for each way of ending."""
    counts = Counter[str](result.status for result in results)
    return ", ".join(f"{counts[status]} {word}" for status, word in STATUS_WORDS.items() if counts[status])


def format_metric(candidate: Candidate, objective: str) -> str:
    """Return the metric of a candidate, with its mean and standard deviation over several seeds."""
    values, name = candidate.objectives, name_metric(objective)
    if len(values) == 1:
        return f"{name} {values[0]:.4f}"
    return f"mean {name} {candidate.mean:.4f} over {len(values)} seeds, standard deviation {stdev(values):.4f}"


def _trials(
    results: Sequence[TrialResult],
    objective: str,
    names: Mapping[NodePath, str],
    *,
    smaller: bool,
    width: int | None,
) -> Iterator[str]:
    # A repeated trial has another one's metric, and would stand in the table twice.
    ended = [result for result in results if result.objective is not None and result.status != "repeated"]
    ended.sort(key=lambda result: (result.objective or 0.0) * (1 if smaller else -1))
    rows = [
        Row(
            (
                result.trial.trial_id,
                f"{result.objective:.4f}",
                "" if result.best_epoch is None else str(result.best_epoch),
                format_duration(result.seconds),
                "early" if result.status == "stopped" else "",
            ),
            format_setting_cells(result.trial.values, names),
        )
        for result in ended[:_MAX_TRIALS]
    ]
    heads = ("trial", name_metric(objective), "epoch", "time", "stopped" if any(row.cells[-1] for row in rows) else "")
    yield from _indented(rows, heads, names, width)
    if len(ended) > _MAX_TRIALS:
        yield f"  and {len(ended) - _MAX_TRIALS} more in search.csv"


def _failed(results: Sequence[TrialResult]) -> Iterator[str]:
    """Yield the reasons of failures, each once: messages that differ only in numbers are one reason."""
    reasons: dict[str, list[TrialResult]] = {}
    for result in results:
        if result.status == "failed":
            reasons.setdefault(_NUMBER.sub("#", result.error), []).append(result)
    for failed in sorted(reasons.values(), key=len, reverse=True):
        trials = ", ".join(result.trial.trial_id for result in failed)
        yield format_line("failed", f"{trials}: {failed[0].error}")


def _finalists(
    candidates: Sequence[Candidate], objective: str, names: Mapping[NodePath, str], *, width: int | None
) -> Iterator[str]:
    several = [candidate for candidate in candidates if len(candidate.objectives) > 1]
    if not several:
        return
    yield format_line("finalists", f"{len(several)} settings, each trained with several seeds; by the mean")
    rows = [
        Row(
            (
                candidate.trial.trial_id,
                f"{candidate.mean:.4f}",
                f"{min(candidate.objectives):.4f} to {max(candidate.objectives):.4f}",
                str(len(candidate.objectives)),
            ),
            format_setting_cells(candidate.trial.values, names),
        )
        for candidate in several
    ]
    yield from _indented(rows, ("trial", f"mean {name_metric(objective)}", "from to", "seeds"), names, width)


def _indented(
    rows: Sequence[Row], heads: Sequence[str], names: Mapping[NodePath, str], width: int | None
) -> Iterator[str]:
    room = None if width is None else width - 2
    yield from (f"  {line}" for line, _ in lay_out_rows(rows, heads, list(names.values()), width=room))
