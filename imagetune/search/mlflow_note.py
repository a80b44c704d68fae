"""Description of a search, at the top of its page in MLflow: the winner, its metrics, and what they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import stdev
from urllib.parse import quote

from imagetune.core import run_files
from imagetune.core.files import read_json_object
from imagetune.core.text import escape_markdown, format_code
from imagetune.recipe.problems import format_path
from imagetune.search.proposers.finalists import Candidate
from imagetune.search.records.trial import Trial
from imagetune.search.results.axes import format_value
from imagetune.search.results.reader import read_search
from imagetune.search.results.verdict import list_remarks
from imagetune.tracking.content import list_test_metrics

# More would push MLflow's own tables off the first screen.
_MAX_CANDIDATES = 5
_MAX_TEST_METRICS = 6
_ENDED = ("finished", "failed", "killed")


def format_search_note(folder: Path, candidates: Sequence[Candidate], *, trials: int, objective: str) -> str:
    """Return a search's description as Markdown: the winner with its spread over seeds, its test, and the next best.

    Args:
        folder: Run folder of the search.
        candidates: The settings that have a metric, the best first; at least one.
        trials: How many trials have ended.
        objective: Name of the validation metric.
    """
    best = candidates[0]
    winner = f"**The best of {trials} trials is trial {best.trial.trial_id}**"
    parts = [
        f"{winner}, with a validation {objective} of {_metric(best)}.",
        _settings(best.trial),
        _test(folder / run_files.BEST),
        _remarks(folder),
        _next(candidates[1:_MAX_CANDIDATES], objective),
    ]
    return "\n\n".join(part for part in parts if part)


def describe_settings(trial: Trial) -> str:
    """Return the searched settings of a trial as Markdown: ``train.batch_size`` 32, and so on."""
    return ", ".join(
        f"{format_code(format_path(path))} {escape_markdown(format_value(value))}"
        for path, value in trial.values.items()
    )


def _metric(candidate: Candidate) -> str:
    seeds = len(candidate.objectives)
    if seeds == 1:
        return f"**{candidate.mean:.4f}** with one seed"
    spread = stdev(candidate.objectives)
    return f"**{candidate.mean:.4f} ± {spread:.4f}** (mean and standard deviation over {seeds} seeds)"


def _settings(trial: Trial) -> str:
    rows = [
        f"| {format_code(format_path(path))} | {escape_markdown(format_value(value))} |"
        for path, value in trial.values.items()
    ]
    return "\n".join(["| setting | value |", "| --- | --- |", *rows]) if rows else ""


def _test(best: Path) -> str:
    """Return the test metrics of the winner's run and a link to it; empty before the test."""
    metrics = list_test_metrics(read_json_object(best / run_files.EVALUATION))[:_MAX_TEST_METRICS]
    rows = [
        f"| {metric.name.replace('_', ' ')} | **{metric.value:.3f}** | "
        f"{'' if metric.low is None else f'{metric.low:.3f} to {metric.high:.3f}'} |"
        for metric in metrics
    ]
    table = (
        "\n".join(["| test metric of the winner | value | interval |", "| --- | --- | --- |", *rows]) if rows else ""
    )
    tracked = read_json_object(best / run_files.TRACKING)
    if not tracked.get("run_id"):
        return table
    # The fragment alone stays with the server, under whatever address the page was opened.
    ids = (quote(str(tracked.get(key)), safe="") for key in ("experiment_id", "run_id"))
    place = "#/experiments/{}/runs/{}".format(*ids)
    return f"{table}\n\n[Open the winner's run, which has the model]({place})".strip()


def _remarks(folder: Path) -> str:
    """Return the remarks of the search's report; empty while the search runs."""
    if read_json_object(folder / run_files.STATUS).get("state") not in _ENDED:
        return ""
    return "\n\n".join(
        f"**{escape_markdown(remark.title)}.** {escape_markdown(remark.text)}"
        for remark in list_remarks(read_search(folder))
    )


def _next(candidates: Sequence[Candidate], objective: str) -> str:
    rows = [
        f"| {one.trial.trial_id} | {one.mean:.4f} | {len(one.objectives)} | {describe_settings(one.trial)} |"
        for one in candidates
    ]
    head = [f"| next best trial | validation {objective} | seeds | settings |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) if rows else ""
