"""Tables of a search: finalists with the metric of each seed, and all trials with their settings."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import stdev
from typing import Any

from imagetune.core.text import format_duration
from imagetune.recipe.sections.search import Value
from imagetune.search.records.table import build_values_key
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.report.timeline import get_trial_kind
from imagetune.search.results.axes import format_value
from imagetune.search.results.reader import SearchFiles
from imagetune.search.results.verdict import compare_candidates


def view_finalists(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return what the table of finalists is made of; None where nothing was trained with several seeds."""
    finalists = [found for found in search.candidates if len(found.objectives) > 1]
    # Sweeps and bake-offs have tables of their own, with their own comparisons.
    if not finalists or search.algorithm in ("sweep", "bakeoff"):
        return None
    own = search.recipe.seed
    seeds = sorted(
        {_seed(result.trial, own) for found in finalists for result in found.results},
        key=lambda seed: (seed != own, seed),
    )
    rows = []
    for place, found in enumerate(finalists):
        by_seed = {_seed(result.trial, own): result for result in found.results}
        rows.append(
            {
                "trial": found.trial.trial_id,
                "settings": [
                    (search.short.get(name, name), format_value(value))
                    for name, value in search.settings(found.trial.values).items()
                ],
                "metrics": [by_seed[seed].objective if seed in by_seed else None for seed in seeds],
                "mean": found.mean,
                "deviation": stdev(found.objectives),
                "difference": compare_candidates(finalists[0], found, search.sign) if place else None,
            }
        )
    return {"seeds": seeds, "rows": rows}


def view_trials(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return what the table of all trials is made of; None where none was proposed."""
    if not search.trials:
        return None
    ended = {result.trial.trial_id: result for result in search.results}
    # The line that parallel coordinates draw for settings bears the name of the first trial that has a metric.
    first = {build_values_key(trial.values): trial.trial_id for trial in reversed(search.trials)}
    first |= {build_values_key(found.trial.values): found.trial.trial_id for found in search.candidates}
    return {
        "columns": [(axis.name, search.short[axis.name]) for axis in search.axes],
        "rows": [_row(search, trial, ended.get(trial.trial_id), first) for trial in search.trials],
        "rungs": any(trial.epochs for trial in search.trials),
        "places": len({result.place for result in search.results}) > 1,
        "winner": search.candidates[0].trial.trial_id if search.candidates else "",
        "failed": any(result.status == "failed" for result in search.results),
    }


def _row(search: SearchFiles, trial: Trial, result: TrialResult | None, first: Mapping[str, str]) -> dict[str, Any]:
    settings = search.settings(trial.values)
    return {
        "trial": trial.trial_id,
        # A trial that failed before it began has no folder.
        "link": f"trials/trial-{trial.trial_id}/" if search.folder_of(trial.trial_id).is_dir() else "",
        "settings": first.get(build_values_key(trial.values), ""),
        "kind": get_trial_kind(result) if result else "open",
        "state": _state(search, result),
        "note": _note(trial),
        "objective": result.objective if result else None,
        "epochs": result.epochs if result else None,
        "granted": trial.epochs,
        "best_epoch": result.best_epoch if result else None,
        "seconds": result.seconds if result else None,
        "duration": format_duration(result.seconds) if result else "-",
        "place": result.place if result else "",
        "error": result.error if result else "",
        "values": [_cell(axis.name, settings) for axis in search.axes],
    }


def _cell(name: str, settings: Mapping[str, Value]) -> tuple[Value, str]:
    """Return what a table sorts by, and what it shows."""
    return (settings[name], format_value(settings[name])) if name in settings else ("", "not used")


def _state(search: SearchFiles, result: TrialResult | None) -> str:
    if result is not None:
        return result.status
    return "running" if search.status.get("state") == "running" else "waits for --resume"


def _note(trial: Trial) -> str:
    if trial.repeats is not None:
        return f"{trial.repeats} again, seed {trial.seed}"
    return f"goes on from {trial.continues}" if trial.continues is not None else ""


def _seed(trial: Trial, own: int) -> int:
    return own if trial.seed is None else trial.seed
