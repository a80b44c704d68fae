"""The text at the top of a search's page in MLflow: the winner, its metrics, and what to make of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import stdev

from imagetune.core import run_files
from imagetune.core.files import read_json_object
from imagetune.recipe.problems import dotted
from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.axes import text_of
from imagetune.search.records.reader import read_search
from imagetune.search.records.trial import Trial
from imagetune.search.records.verdict import remarks_of
from imagetune.tracking.content import test_metrics

_BEST_TOLD = 5
_TEST_TOLD = 6
_ENDED = ("finished", "failed", "killed")


def search_note(folder: Path, candidates: Sequence[Candidate], *, trials: int, objective: str) -> str:
    """Return Markdown: the winner with its spread over seeds, its test, what to make of it, and the next best.

    Args:
        folder: The search's run folder.
        candidates: The settings that have a metric, the best first; at least one.
        trials: How many trials have ended.
        objective: The validation metric.
    """
    best = candidates[0]
    parts = [
        f"**Best of {trials} trainings: trial {best.trial.trial_id}**, {objective} on validation {_metric(best)}",
        _settings(best.trial),
        _test(folder / run_files.BEST),
        _verdict(folder),
        _next(candidates[1:_BEST_TOLD], objective),
    ]
    return "\n\n".join(part for part in parts if part)


def describe_settings(trial: Trial) -> str:
    """Return the searched settings of a trial as Markdown: ``train.batch_size`` 32, and so on."""
    return ", ".join(f"`{dotted(path)}` {text_of(value)}" for path, value in trial.values.items())


def _metric(candidate: Candidate) -> str:
    seeds = len(candidate.objectives)
    if seeds == 1:
        return f"**{candidate.mean:.4f}**, one seed"
    return f"**{candidate.mean:.4f} ± {stdev(candidate.objectives):.4f}** over {seeds} seeds"


def _settings(trial: Trial) -> str:
    rows = [f"| `{dotted(path)}` | {_cell(text_of(value))} |" for path, value in trial.values.items()]
    return "\n".join(["| setting | value |", "| --- | --- |", *rows]) if rows else ""


def _test(best: Path) -> str:
    """Return the test of the winner's run and where that is; empty before it."""
    metrics = test_metrics(read_json_object(best / run_files.EVALUATION))[:_TEST_TOLD]
    rows = [
        f"| {metric.name.replace('_', ' ')} | **{metric.value:.3f}** | "
        f"{'' if metric.low is None else f'{metric.low:.3f} to {metric.high:.3f}'} |"
        for metric in metrics
    ]
    table = "\n".join(["| its test | value | interval |", "| --- | --- | --- |", *rows]) if rows else ""
    tracked = read_json_object(best / run_files.TRACKING)
    if not tracked.get("run_id"):
        return table
    place = f"#/experiments/{tracked.get('experiment_id')}/runs/{tracked['run_id']}"
    return f"{table}\n\n[The winner's run, with its model]({place})".strip()


def _verdict(folder: Path) -> str:
    """Return what the report says in words, when the search has ended."""
    if read_json_object(folder / run_files.STATUS).get("state") not in _ENDED:
        return ""
    return "\n\n".join(f"**{remark.title}.** {remark.text}" for remark in remarks_of(read_search(folder)))


def _next(candidates: Sequence[Candidate], objective: str) -> str:
    rows = [
        f"| {one.trial.trial_id} | {one.mean:.4f} | {len(one.objectives)} | {_cell(describe_settings(one.trial))} |"
        for one in candidates
    ]
    head = [f"| next best | {objective} | seeds | settings |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) if rows else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
