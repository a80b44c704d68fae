"""The overview of a run that its report and its model card share: description, end, metrics, images, requirements."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.data.sources.labels import build_label_rule
from imagetune.recipe.metrics import METRICS, fill_in, is_lower_better
from imagetune.recipe.tasks import Task
from imagetune.run_folder.reader import SPLITS, RunFiles


def list_run_facts(run: RunFiles) -> Iterator[tuple[str, str]]:
    """Yield what identifies a run, as name and value: recipe, backbone, weights, seed and so on."""
    recipe, weights = run.recipe, run.lock.get("weights", {})
    yield "recipe", recipe.name
    yield "backbone", recipe.model.backbone
    digest = weights.get("sha256")
    yield "weights", recipe.model.weights + (f" (SHA-256 {digest[:12]}…)" if digest else "")
    if digest or weights.get("license"):
        yield "licence of these weights", weights.get("license") or "unknown, see where they come from"
    height, width = recipe.data.image.height, recipe.data.image.width
    yield "images", f"{Path(recipe.data.source).name}, {height} x {width} pixels, {recipe.data.resize}"
    yield "seed", str(recipe.seed)
    yield "started", _started(run)
    yield "run folder", run.folder.name
    if run.tracking.get("run_id"):
        yield "MLflow run", str(run.tracking["run_id"])


def _started(run: RunFiles) -> str:
    """Return when the run began: from its folder's name, else from its first file."""
    # The name stays when the folder is copied, while a file's time may change.
    found = re.search(r"-(\d{8}-\d{6})-", run.folder.name)
    when = (
        time.strptime(found[1], "%Y%m%d-%H%M%S")
        if found
        else time.localtime((run.folder / run_files.RECIPE).stat().st_mtime)
    )
    return time.strftime("%Y-%m-%d %H:%M", when)


def describe_problem(run: RunFiles) -> str:
    """Return in words how the run ended; an empty text where it finished."""
    state = run.status.get("state")
    if state in (None, "finished"):
        return ""
    where = f" in stage {run.status['stage']}, epoch {run.status['epoch']}" if run.status.get("stage") else ""
    if state == "running":
        return f"The run is still in progress{where}; this page shows the results so far."
    how = "was stopped" if state == "killed" else "failed"
    reason = f" The reason: {run.status['error'].rstrip('.')}." if run.status.get("error") else ""
    return f"The run {how}{where}.{reason}"


def view_metric(run: RunFiles, name: str) -> dict[str, Any]:
    """Return a headline metric with its values by split and, for a share, the place of its interval in percent."""
    unit = (
        "in ranks"
        if get_evaluated_task(run) == "ordinal"
        else f"in the unit of {' '.join(run.evaluation['class_names'])}"
    )
    metric, k = METRICS[name], run.evaluation.get("top_k", "k")
    title, meaning = (fill_in(text, k=k, unit=unit) for text in (metric.title, metric.meaning))
    splits = {split: run.evaluation["splits"][split]["metrics"][name] for split in run.evaluation["splits"]}
    found = splits[run.tested_name]
    view = {"name": name, "title": title, "meaning": meaning, "splits": splits, **found, "bar": None}
    # The bar's axis is 0 to 1; an R squared below 0 lies outside it.
    if metric.high == 1.0 and found["low"] is not None and 0 <= found["low"] <= found["high"] <= 1:
        low, high = 100 * found["low"], 100 * found["high"]
        # A shorter bar couldn't be seen.
        view["bar"] = {"left": low, "width": max(high - low, 0.5), "dot": 100 * found["value"]}
    return view


def get_evaluated_task(run: RunFiles) -> Task:
    """Return the task that was evaluated; evaluation.json of old runs, all of single labels, does not say it."""
    task: Task = run.evaluation.get("task", "single_label")
    return task


def count_images_per_split(run: RunFiles) -> dict[str, Any] | None:
    """Count the images of each class in each split; None before the images were split."""
    if not run.rows:
        return None
    rule = build_label_rule(run.recipe.data)
    totals = Counter(row["split"] for row in run.rows)
    splits = [split for split in SPLITS if totals[split]]
    counts = {split: rule.counts(row["label"] for row in run.rows if row["split"] == split) for split in splits}
    labels = sorted(set().union(*counts.values()))
    return {
        "splits": [SPLITS[split] for split in splits],
        "rows": [(label, [counts[split][label] for split in splits]) for label in labels],
        "totals": [totals[split] for split in splits],
    }


def view_requirements(run: RunFiles) -> list[dict[str, Any]]:
    """Return the requirements of the test, each with the end of the interval that is compared and the side."""
    words = {"lower_bound": "lower end of the interval", "upper_bound": "upper end of the interval", "value": "value"}
    return [
        {
            **requirement,
            "what": what,
            "needed": requirement[kind],
            "side": "at most" if is_lower_better(requirement["metric"]) else "at least",
        }
        for requirement in run.evaluation.get("requirements", [])
        for kind, what in words.items()
        if requirement.get(kind) is not None
    ]
