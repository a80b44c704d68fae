"""report.html: one page about one run, made from the run folder and its pictures alone.

The page needs no network: styles, script, drawings and thumbnails are inside. What the run never wrote is left out, and
said.
"""

from __future__ import annotations

import re
import shlex
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from imagetune.data.labels import label_rule
from imagetune.evaluation.curves import curve_drawings
from imagetune.evaluation.drawing import Drawing
from imagetune.evaluation.heatmap import confusion_drawing, shown_classes
from imagetune.evaluation.imbalance import ClassBalance, class_balance
from imagetune.evaluation.mistakes import worst_mistakes, wrong_pictures
from imagetune.evaluation.run_files import SPLITS, RunFiles, read_run
from imagetune.evaluation.schedule_plot import schedule_drawing, stage_rates
from imagetune.evaluation.value_plots import MOST_POINTS, value_drawings
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
# Those with the labels' units, where three decimals may be too few or too many.
WITH_UNITS = ("mae", "rmse")
CARDS: Mapping[str, tuple[str, ...]] = {
    "single_label": ("accuracy", "balanced_accuracy", "f1", "top_k_accuracy", "roc_auc", "log_loss"),
    "multi_label": ("mean_average_precision", "f1", "micro_f1", "subset_accuracy", "hamming_loss"),
    "ordinal": ("mae", "quadratic_weighted_kappa", "within_one_rank", "accuracy", "balanced_accuracy", "f1"),
    "regression": ("mae", "rmse", "r2", "spearman"),
}
CLASS_COLUMNS: Mapping[str, Mapping[str, str]] = {
    "single_label": {"f1": "F1", "precision": "precision", "recall": "recall", "roc_auc": "ROC AUC"},
    "multi_label": {"f1": "F1", "precision": "precision", "recall": "recall", "average_precision": "average precision"},
}
SMALLER_IS_BETTER = ("loss", "mae")
# Template of a section, and what it is drawn from: None where the run has nothing of it.
SECTIONS: Mapping[str, Callable[[RunFiles], Mapping[str, Any] | None]] = {}
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
    environment.filters["measure"] = _measure
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}%"
    tested = run.tested_split
    return environment.get_template("report.html.jinja").render(
        run=run,
        facts=list(_facts(run)),
        problem=_problem(run),
        tested=tested,
        tested_name=SPLITS[run.tested_name],
        confidence=100 * run.evaluation.get("bootstrap", {}).get("confidence", 0.95),
        task=_task(run),
        cards=[_figure_view(run, name) for name in CARDS[_task(run)]] if tested else [],
        figures=[_figure_view(run, name) for name in FIGURES if name in tested["figures"]] if tested else [],
        splits={split: name for split, name in SPLITS.items() if split in run.evaluation.get("splits", {})},
        curves=_curves(run),
        confusion=_confusion(run),
        mix_ups=list(_mix_ups(run)),
        classes=sorted(tested.get("per_class", []), key=_weakness) if tested else [],
        class_columns=CLASS_COLUMNS.get(_task(run), CLASS_COLUMNS["single_label"]),
        values=_values(run),
        balance=_balance(run),
        mistakes=_mistakes(run),
        sections=[(f"{name}.html.jinja", found) for name, part in SECTIONS.items() if (found := part(run)) is not None],
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
    unit = "in ranks" if _task(run) == "ordinal" else f"in the unit of {' '.join(run.evaluation['class_names'])}"
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


def _confusion(run: RunFiles) -> dict[str, Any] | None:
    tested = run.tested_split
    if tested is None or "confusion_matrix" not in tested:
        return None
    matrix = np.array(tested["confusion_matrix"], dtype=np.int64)
    names = run.evaluation["class_names"]
    left_out = len(names) - len(shown_classes(matrix))
    return {**_markup(confusion_drawing(matrix, names)), "left_out": left_out}


def _mix_ups(run: RunFiles) -> Iterator[dict[str, Any]]:
    """Yield the most frequent confusions, the largest first."""
    tested = run.tested_split
    if tested is None or "confusion_matrix" not in tested:
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


def _balance(run: RunFiles) -> ClassBalance | None:
    """Return what training made of classes of unequal size; None where there is nothing to tell."""
    if run.tested_split is None or run.recipe.data.task not in ("single_label", "ordinal"):
        return None
    counts = Counter(row["label"] for row in run.rows if row["split"] == "train")
    return class_balance(run.recipe.train, counts, run.tested_split["per_class"])


def _mistakes(run: RunFiles) -> dict[str, Any] | None:
    """Return the worst mistakes; None where there are no predictions."""
    predictions = run.tested_predictions
    if predictions is None:
        return None
    most = run.recipe.evaluate.mistakes
    shown = list(worst_mistakes(predictions, root=run.pictures_root, config=run.recipe.data, most=most))
    single = predictions.rule.task in ("single_label", "ordinal")
    pictures = int((predictions.labels >= 0).sum()) if single else len(predictions.paths)
    return {"wrong": len(wrong_pictures(predictions)), "pictures": pictures, "shown": shown}


def _values(run: RunFiles) -> dict[str, Any] | None:
    """Return the drawings of predicted numbers; None where classes are predicted or there are no predictions."""
    predictions = run.tested_predictions
    if predictions is None or predictions.rule.task != "regression":
        return None
    true, given = predictions.targets[:, 0], predictions.probabilities[:, 0]
    drawings = value_drawings(true, given, predictions.class_names[0])
    drawn = min(len(true), MOST_POINTS)
    return {"drawings": [_markup(drawing) for drawing in drawings], "drawn": drawn, "pictures": len(true)}


def _task(run: RunFiles) -> str:
    """Return the task of the figures; runs of old have classes."""
    return str(run.evaluation.get("task", "single_label"))


def _picture_counts(run: RunFiles) -> dict[str, Any] | None:
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
        value, epoch = min(found, key=lambda pair: pair[0] if metric in SMALLER_IS_BETTER else -pair[0])
        best = f"{metric} {value:.3f} in epoch {epoch}"
    unfreeze = stage.unfreeze if isinstance(stage.unfreeze, str) else ", ".join(stage.unfreeze)
    return {
        "name": stage.name,
        "trains": "head only" if unfreeze == "none" else f"head and {unfreeze}",
        "epochs": f"{len(lines)} of {stage.epochs}",
        "rate": f"{_rate(run, stage)}, {stage.schedule.name}",
        "best": best,
    }


def _rate(run: RunFiles, stage: StageConfig) -> str:
    if stage.learning_rate != "auto":
        return f"{stage.learning_rate:g}"
    measured = [rates.rates.max() for rates in stage_rates(run.recipe.train, run.epochs) if rates.name == stage.name]
    return f"auto: {measured[0]:.2g}" if measured else "auto"


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
    members = [str(member["run"]) for member in run.soup.get("members", [])]
    again = shlex.join(["imagetune", "soup", *members]) if members else f"imagetune fit {folder}/recipe.yaml"
    repeat = ("Repeat this run", again)
    if run.status.get("state") != "finished":
        return [repeat]
    return [
        repeat,
        ("Name new pictures", f"imagetune predict {folder} picture.jpg folder/ --csv answers.csv"),
        ("Test again, or on other labelled pictures", f"imagetune evaluate {folder} --data other/"),
        ("Review all runs in MLflow", "imagetune ui"),
        ("Use the model without imagetune", f'keras.models.load_model("{run.folder.name}/model.keras")'),
    ]


def _curves(run: RunFiles) -> list[dict[str, Any]]:
    drawings = list(curve_drawings(run.epochs)) if run.epochs else []
    if rates := stage_rates(run.recipe.train, run.epochs):
        drawings.append(schedule_drawing(rates))
    return [_markup(drawing) for drawing in drawings]


def _markup(drawing: Drawing) -> dict[str, Any]:
    # The drawing is our own, its texts escaped by matplotlib.
    return {"title": drawing.title, "svg": Markup(drawing.svg), "width": drawing.width}  # noqa: S704


def _number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _measure(value: float | None, name: str) -> str:
    """Return the value of the figure ``name``."""
    return f"{value:.4g}" if value is not None and name in WITH_UNITS else _number(value)
