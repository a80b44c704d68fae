"""report.html: one page about one run, made from the run folder and its pictures alone.

The page needs no network: styles, script, drawings and thumbnails are inside. What the run never wrote is left out, and
said.
"""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from imagetune.evaluation.curves import curve_drawings
from imagetune.evaluation.drawing import Drawing
from imagetune.evaluation.heatmap import confusion_drawing, shown_classes
from imagetune.evaluation.mistakes import worst_mistakes
from imagetune.evaluation.run_files import SPLITS, RunFiles, read_run
from imagetune.files import write_text
from imagetune.recipe.train import StageConfig

FIGURES = {
    "accuracy": ("Accuracy", "share of right answers"),
    "balanced_accuracy": ("Balanced accuracy", "each class counts the same"),
    "f1": ("F1", "mean of the classes"),
    "top_k_accuracy": ("Top-{k} accuracy", "the true class is among the {k} likeliest"),
    "roc_auc": ("ROC AUC", "each class against the rest"),
    "log_loss": ("Log loss", "in nats, lower is better"),
    "precision": ("Precision", "mean of the classes"),
    "recall": ("Recall", "mean of the classes"),
}
CARDS = ("accuracy", "balanced_accuracy", "f1", "top_k_accuracy", "roc_auc", "log_loss")
MOST_MIX_UPS = 6
MOST_PATHS = 5


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder.

    Args:
        run_dir: A run folder in whatever state the run ended; only recipe.yaml has to be there.

    Returns:
        The file.

    Raises:
        ModelFileError: It is no run folder, or a file in it is damaged.
        RecipeError: Its recipe can't be read.
        ResourceError: The disk is full.
    """
    path = run_dir / "report.html"
    # A path with bytes that are no UTF-8 is still a path; on the page it gets question marks.
    write_text(path, render_report(read_run(run_dir)).encode("utf-8", "replace").decode("utf-8"))
    return path


def render_report(run: RunFiles) -> str:
    """Return the page."""
    environment = Environment(
        loader=PackageLoader("imagetune.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = _number
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}%"
    tested = run.tested_split
    return environment.get_template("report.html.jinja").render(
        run=run,
        facts=list(_facts(run)),
        problem=_problem(run),
        tested=tested,
        tested_name=SPLITS[run.tested_name],
        confidence=100 * run.evaluation.get("bootstrap", {}).get("confidence", 0.95),
        cards=[_figure_view(run, name) for name in CARDS] if tested else [],
        figures=[_figure_view(run, name) for name in FIGURES] if tested else [],
        splits={split: name for split, name in SPLITS.items() if split in run.evaluation.get("splits", {})},
        curves=[_markup(drawing) for drawing in curve_drawings(run.epochs)] if run.epochs else [],
        confusion=_confusion(run),
        mix_ups=list(_mix_ups(run)),
        classes=sorted(tested["per_class"], key=_weakness) if tested else [],
        mistakes=_mistakes(run),
        pictures=_picture_counts(run),
        findings=[_finding(found) for found in run.audit.get("findings", [])],
        stages=[_stage(run, stage) for stage in run.recipe.train.stages],
        environment=list(_environment(run)),
        commands=_commands(run),
    )


def _facts(run: RunFiles) -> Iterator[tuple[str, str]]:
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
        else time.localtime((run.folder / "recipe.yaml").stat().st_mtime)
    )
    return time.strftime("%Y-%m-%d %H:%M", when)


def _problem(run: RunFiles) -> str:
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


def _figure_view(run: RunFiles, name: str) -> dict[str, Any]:
    """Return a headline figure with its values by split and, for a share, the place of its interval in percent."""
    title, meaning = (text.format(k=run.evaluation.get("top_k", "k")) for text in FIGURES[name])
    splits = {split: run.evaluation["splits"][split]["figures"][name] for split in run.evaluation["splits"]}
    figure = splits[run.tested_name]
    view = {"name": name, "title": title, "meaning": meaning, "splits": splits, **figure, "bar": None}
    if name != "log_loss" and figure["low"] is not None:
        low, high = 100 * figure["low"], 100 * figure["high"]
        view["bar"] = {"left": low, "width": max(high - low, 0.5), "dot": 100 * figure["value"]}
    return view


def _confusion(run: RunFiles) -> dict[str, Any] | None:
    tested = run.tested_split
    if tested is None:
        return None
    matrix = np.array(tested["confusion_matrix"], dtype=np.int64)
    names = run.evaluation["class_names"]
    left_out = len(names) - len(shown_classes(matrix))
    return {**_markup(confusion_drawing(matrix, names)), "left_out": left_out}


def _mix_ups(run: RunFiles) -> Iterator[dict[str, Any]]:
    """Yield the most frequent confusions, the largest first."""
    tested = run.tested_split
    if tested is None:
        return
    matrix = np.array(tested["confusion_matrix"], dtype=np.int64)
    names, totals = run.evaluation["class_names"], matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diag(matrix))
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:MOST_MIX_UPS]:
        row, column = np.unravel_index(cell, wrong.shape)
        if wrong[row, column]:
            yield {"true": names[row], "taken": names[column], "count": int(wrong[row, column]), "of": int(totals[row])}


def _weakness(row: Mapping[str, Any]) -> tuple[bool, float]:
    f1 = row["figures"]["f1"]["value"]
    return f1 is None, f1 or 0.0


def _mistakes(run: RunFiles) -> dict[str, Any] | None:
    """Return the worst mistakes; None where there are no predictions."""
    predictions = run.tested_predictions
    if predictions is None:
        return None
    wrong = int(((predictions.labels >= 0) & (predictions.labels != predictions.predicted)).sum())
    most = run.recipe.evaluate.mistakes
    shown = list(worst_mistakes(predictions, root=run.pictures_root, config=run.recipe.data, most=most))
    return {"wrong": wrong, "pictures": int((predictions.labels >= 0).sum()), "shown": shown}


def _picture_counts(run: RunFiles) -> dict[str, Any] | None:
    """Return the pictures of each class and split; None before the pictures were split."""
    if not run.rows:
        return None
    counts = Counter((row["label"], row["split"]) for row in run.rows)
    labels = sorted({label for label, _ in counts})
    splits = [split for split in SPLITS if any(counts[label, split] for label in labels)]
    return {
        "splits": [SPLITS[split] for split in splits],
        "rows": [(label, [counts[label, split] for split in splits]) for label in labels],
        "totals": [sum(counts[label, split] for label in labels) for split in splits],
    }


def _finding(found: Mapping[str, Any]) -> dict[str, Any]:
    paths = found.get("paths", [])
    return {
        "severity": found.get("severity", "note"),
        "title": found.get("title", ""),
        "explanation": found.get("explanation", ""),
        "hint": found.get("hint", ""),
        "paths": paths[:MOST_PATHS],
        "more": max(len(paths) - MOST_PATHS, 0),
    }


def _stage(run: RunFiles, stage: StageConfig) -> dict[str, Any]:
    """Return a stage as planned, and how it went."""
    lines = [line for line in run.epochs if line.get("stage") == stage.name]
    metric = (stage.early_stopping or run.recipe.train.early_stopping).metric
    found = [(line["val"][metric], line["epoch"]) for line in lines if (line.get("val") or {}).get(metric) is not None]
    best = ""
    if found:
        value, epoch = min(found, key=lambda pair: pair[0] if metric == "loss" else -pair[0])
        best = f"{metric} {value:.3f} in epoch {epoch}"
    unfreeze = stage.unfreeze if isinstance(stage.unfreeze, str) else ", ".join(stage.unfreeze)
    return {
        "name": stage.name,
        "trains": "head only" if unfreeze == "none" else f"head and {unfreeze}",
        "epochs": f"{len(lines)} of {stage.epochs}",
        "rate": f"{stage.learning_rate:g}, {stage.schedule.name}",
        "best": best,
    }


def _environment(run: RunFiles) -> Iterator[tuple[str, str]]:
    for name, version in run.lock.get("versions", {}).items():
        yield str(name), str(version)
    for name, value in run.lock.get("platform", {}).items():
        if name == "memory_bytes":
            yield "memory", f"{value / 2**30:.1f} GiB"
        else:
            yield str(name), str(value)
    for name, value in run.lock.get("weights", {}).items():
        if name in ("source", "sha256", "note") and value:
            yield f"weights {name}", str(value)
    if run.lock.get("pictures"):
        yield "pictures hashed", f"{len(run.lock['pictures']):,}"


def _commands(run: RunFiles) -> list[tuple[str, str]]:
    folder = shlex.quote(f"runs/{run.folder.name}" if run.folder.parent.name == "runs" else run.folder.name)
    repeat = ("Repeat this run", f"imagetune fit {folder}/recipe.yaml")
    if run.status.get("state") != "finished":
        return [repeat]
    return [
        repeat,
        ("Name new pictures", f"imagetune predict {folder} picture.jpg folder/ --csv answers.csv"),
        ("Test again, or on other labelled pictures", f"imagetune evaluate {folder} --data other/"),
        ("Review all runs in MLflow", "imagetune ui"),
        ("Use the model without imagetune", f'keras.models.load_model("{run.folder.name}/model.keras")'),
    ]


def _markup(drawing: Drawing) -> dict[str, Any]:
    # The drawing is our own, its texts escaped by matplotlib.
    return {"title": drawing.title, "svg": Markup(drawing.svg), "width": drawing.width}  # noqa: S704


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
