"""What every page about a run tells of it: its facts, how it ended, its figures, its pictures."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from imagetune.core import run_files
from imagetune.data.labels import label_rule
from imagetune.recipe.tracking import LOWER_IS_BETTER, WITH_UNITS
from imagetune.run_folder.reader import SPLITS, RunFiles

FIGURES = {
    "accuracy": ("Accuracy", "share of right answers"),
    "balanced_accuracy": ("Balanced accuracy", "each class counts the same"),
    "f1": ("F1", "mean of the classes"),
    "top_k_accuracy": ("Top-{k} accuracy", "the true class is among the {k} likeliest"),
    "roc_auc": ("ROC AUC", "each class against the rest"),
    "log_loss": ("Log loss", "in nats, lower is better"),
    "precision": ("Precision", "mean of the classes"),
    "recall": ("Recall", "mean of the classes"),
    "mae": ("Mean absolute error", "{unit}, lower is better"),
    "quadratic_weighted_kappa": ("Weighted kappa", "agreement beyond chance, far misses count more"),
    "within_one_rank": ("Within one rank", "share of answers at most one rank off"),
    "mean_average_precision": ("Mean average precision", "whatever the thresholds, mean of the classes"),
    "micro_f1": ("Micro F1", "each given or missed label counts the same"),
    "subset_accuracy": ("Subset accuracy", "share of pictures all of whose labels are right"),
    "hamming_loss": ("Hamming loss", "share of wrong labels, lower is better"),
    "rmse": ("Root mean squared error", "{unit}, lower is better"),
    "r2": ("R squared", "share of the variance that is explained"),
    "spearman": ("Spearman", "correlation of the ranks"),
}


def facts_of(run: RunFiles) -> Iterator[tuple[str, str]]:
    """Yield what the run is, as name and value."""
    recipe, weights = run.recipe, run.lock.get("weights", {})
    yield "recipe", recipe.name
    yield "backbone", recipe.model.backbone
    digest = weights.get("sha256")
    yield "weights", recipe.model.weights + (f" (SHA-256 {digest[:12]}…)" if digest else "")
    height, width = recipe.data.image.height, recipe.data.image.width
    yield "pictures", f"{Path(recipe.data.source).name}, {height} x {width} pixels, {recipe.data.resize}"
    yield "seed", str(recipe.seed)
    yield "started", _started(run)
    yield "run folder", run.folder.name
    if run.tracking.get("run_id"):
        yield "MLflow run", str(run.tracking["run_id"])


def _started(run: RunFiles) -> str:
    """Return when the run began: from its folder's name, else from its first file."""
    found = re.search(r"-(\d{8}-\d{6})-", run.folder.name)
    when = (
        time.strptime(found[1], "%Y%m%d-%H%M%S")
        if found
        else time.localtime((run.folder / run_files.RECIPE).stat().st_mtime)
    )
    return time.strftime("%Y-%m-%d %H:%M", when)


def problem_of(run: RunFiles) -> str:
    """Return how the run ended, where it did not end well."""
    state = run.status.get("state")
    if state in (None, "finished"):
        return ""
    where = f" in stage {run.status['stage']}, epoch {run.status['epoch']}" if run.status.get("stage") else ""
    if state == "running":
        return f"The run is still going on{where}; this page shows what there is so far."
    how = "was stopped" if state == "killed" else "failed"
    reason = f" The reason: {run.status['error']}." if run.status.get("error") else ""
    return f"The run {how}{where}.{reason}"


def figure_view(run: RunFiles, name: str) -> dict[str, Any]:
    """Return a headline figure with its values by split and, for a share, the place of its interval in percent."""
    unit = "in ranks" if task_of(run) == "ordinal" else f"in the unit of {' '.join(run.evaluation['class_names'])}"
    words = {"k": run.evaluation.get("top_k", "k"), "unit": unit}
    title, meaning = (text.format(**words) for text in FIGURES[name])
    splits = {split: run.evaluation["splits"][split]["figures"][name] for split in run.evaluation["splits"]}
    figure = splits[run.tested_name]
    view = {"name": name, "title": title, "meaning": meaning, "splits": splits, **figure, "bar": None}
    if (
        name not in (*WITH_UNITS, "log_loss")
        and figure["low"] is not None
        and 0 <= figure["low"] <= figure["high"] <= 1
    ):
        low, high = 100 * figure["low"], 100 * figure["high"]
        view["bar"] = {"left": low, "width": max(high - low, 0.5), "dot": 100 * figure["value"]}
    return view


def task_of(run: RunFiles) -> str:
    """Return the task of the figures; runs of old have classes."""
    return str(run.evaluation.get("task", "single_label"))


def picture_counts(run: RunFiles) -> dict[str, Any] | None:
    """Return the pictures of each class and split; None before the pictures were split."""
    if not run.rows:
        return None
    rule = label_rule(run.recipe.data)
    totals = Counter(row["split"] for row in run.rows)
    splits = [split for split in SPLITS if totals[split]]
    counts = {split: rule.counts(row["label"] for row in run.rows if row["split"] == split) for split in splits}
    labels = sorted(set().union(*counts.values()))
    return {
        "splits": [SPLITS[split] for split in splits],
        "rows": [(label, [counts[split][label] for split in splits]) for label in labels],
        "totals": [totals[split] for split in splits],
    }


def requirement_views(run: RunFiles) -> list[dict[str, Any]]:
    """Return the bars that the test had to reach, with words for what is held against which side of them."""
    words = {"lower_bound": "lower end of the interval", "upper_bound": "upper end of the interval", "value": "value"}
    return [
        {
            **bar,
            "what": what,
            "needed": bar[kind],
            "side": "at most" if bar["metric"] in LOWER_IS_BETTER else "at least",
        }
        for bar in run.evaluation.get("requirements", [])
        for kind, what in words.items()
        if bar.get(kind) is not None
    ]


def number(value: float | None, digits: int = 3) -> str:
    """Return a value with so many decimals; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def measure(value: float | None, name: str) -> str:
    """Return the value of the figure ``name``."""
    return f"{value:.4g}" if value is not None and name in WITH_UNITS else number(value)
