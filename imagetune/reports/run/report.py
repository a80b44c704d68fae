"""The report of a run, report.html: one page made from the run folder and its images alone.

The page needs no network: styles, script, drawings and thumbnails are inside. What the run never wrote is left out, and
the page says so.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from imagetune.core import run_files
from imagetune.evaluation.errors.mistakes import wrong_images
from imagetune.recipe.metrics import (
    METRICS,
    is_lower_better,
    list_card_metrics,
    list_class_metrics,
)
from imagetune.recipe.train import StageConfig
from imagetune.reports.page import html_environment, write_page
from imagetune.reports.plots.confusion_matrix import confusion_drawing, shown_classes
from imagetune.reports.plots.learning_curves import curve_drawings
from imagetune.reports.plots.lr_schedule import schedule_drawing, stage_rates
from imagetune.reports.run.overview import facts_of, image_counts, metric_view, problem_of, requirement_views, task_of
from imagetune.reports.sections.baselines import baselines_view
from imagetune.reports.sections.class_imbalance import ClassBalance, class_balance
from imagetune.reports.sections.explanations import explanations_view
from imagetune.reports.sections.folds import folds_view
from imagetune.reports.sections.galleries import galleries_view
from imagetune.reports.sections.label_errors import label_errors_view
from imagetune.reports.sections.mistakes import worst_mistakes
from imagetune.reports.sections.ordinal_and_multilabel import label_confusions_view, rank_errors_view
from imagetune.reports.sections.out_of_distribution import out_of_distribution_view
from imagetune.reports.sections.power import power_view
from imagetune.reports.sections.probabilities import (
    calibration_view,
    conformal_view,
    costs_view,
    curves_view,
    operating_view,
    selective_view,
)
from imagetune.reports.sections.residuals import residuals_view
from imagetune.reports.sections.robustness import robustness_view
from imagetune.reports.sections.slices import slices_view
from imagetune.reports.style import Drawing
from imagetune.run_folder.reader import SPLITS, RunFiles, read_run

# The template of each section, and the function that returns what it shows: None where the run has nothing of it.
SECTIONS: Mapping[str, Callable[[RunFiles], Mapping[str, Any] | None]] = {
    "rank_errors": rank_errors_view,
    "label_confusions": label_confusions_view,
    "power": power_view,
    "folds": folds_view,
    "slices": slices_view,
    "baselines": baselines_view,
    "operating_point": operating_view,
    "costs": costs_view,
    "calibration": calibration_view,
    "selective": selective_view,
    "conformal": conformal_view,
    "curves": curves_view,
    "galleries": galleries_view,
    "label_errors": label_errors_view,
    "out_of_distribution": out_of_distribution_view,
    "explanations": explanations_view,
    "robustness": robustness_view,
}
MAX_CONFUSIONS = 6
MAX_PATHS = 5


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a run folder, and return its path.

    Args:
        run_dir: A run folder in whatever state the run ended; only recipe.yaml has to be there.

    Returns:
        The file.

    Raises:
        ModelFileError: It is no run folder, or a file in it is corrupted.
        RecipeError: Its recipe can't be read.
        ResourceError: The disk is full.
    """
    return write_page(run_dir / run_files.REPORT, render_report(read_run(run_dir)))


def render_report(run: RunFiles) -> str:
    """Return the report of a run as HTML."""
    tested = run.tested_split
    return (
        html_environment()
        .get_template("report.html.jinja")
        .render(
            run=run,
            facts=list(facts_of(run)),
            problem=problem_of(run),
            tested=tested,
            tested_name=SPLITS[run.tested_name],
            confidence=100 * run.evaluation.get("bootstrap", {}).get("confidence", 0.95),
            task=task_of(run),
            cards=[metric_view(run, name) for name in list_card_metrics(task_of(run))] if tested else [],
            requirements=requirement_views(run),
            metrics=[metric_view(run, name) for name in METRICS if name in tested["metrics"]] if tested else [],
            splits={split: name for split, name in SPLITS.items() if split in run.evaluation.get("splits", {})},
            curves=_draw_curves(run),
            confusion=_draw_confusion(run),
            confusions=list(_list_confusions(run)),
            classes=sorted(tested.get("per_class", []), key=_rank_by_f1) if tested else [],
            class_columns={name: METRICS[name].heading for name in list_class_metrics(task_of(run))},
            residuals=residuals_view(run),
            balance=_compute_balance(run),
            mistakes=_view_mistakes(run),
            sections=[
                (f"{name}.html.jinja", found) for name, part in SECTIONS.items() if (found := part(run)) is not None
            ],
            images=image_counts(run),
            findings=[_view_finding(found) for found in run.audit.get("findings", [])],
            stages=[_view_stage(run, stage) for stage in run.recipe.train.stages],
            environment=list(_list_environment(run)),
            commands=_list_commands(run),
        )
    )


def _draw_confusion(run: RunFiles) -> dict[str, Any] | None:
    tested = run.tested_split
    if tested is None or "confusion_matrix" not in tested:
        return None
    matrix = np.array(tested["confusion_matrix"], dtype=np.int64)
    names = run.evaluation["class_names"]
    left_out = len(names) - len(shown_classes(matrix))
    return {"drawing": confusion_drawing(matrix, names), "left_out": left_out}


def _list_confusions(run: RunFiles) -> Iterator[dict[str, Any]]:
    """Yield the most frequent confusions, the largest first."""
    tested = run.tested_split
    if tested is None or "confusion_matrix" not in tested:
        return
    matrix = np.array(tested["confusion_matrix"], dtype=np.int64)
    names, totals = run.evaluation["class_names"], matrix.sum(axis=1)
    wrong = matrix - np.diag(np.diag(matrix))
    for cell in np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]:
        row, column = np.unravel_index(cell, wrong.shape)
        if wrong[row, column]:
            yield {
                "true": names[row],
                "predicted": names[column],
                "count": int(wrong[row, column]),
                "of": int(totals[row]),
            }


def _rank_by_f1(row: Mapping[str, Any]) -> tuple[bool, float]:
    f1 = row["metrics"]["f1"]["value"]
    return f1 is None, f1 or 0.0


def _compute_balance(run: RunFiles) -> ClassBalance | None:
    """Return the class balance of the run; None where classes are of nearly equal size or the task has none."""
    if run.tested_split is None or run.recipe.data.task not in ("single_label", "ordinal"):
        return None
    counts = Counter(row["label"] for row in run.rows if row["split"] == "train")
    return class_balance(run.recipe.train, counts, run.tested_split["per_class"])


def _view_mistakes(run: RunFiles) -> dict[str, Any] | None:
    """Return the worst mistakes; None where there are no predictions."""
    predictions = run.tested_predictions
    if predictions is None:
        return None
    most = run.recipe.evaluate.mistakes
    shown = list(worst_mistakes(predictions, root=run.images_root, config=run.recipe.data, most=most))
    single = predictions.rule.task in ("single_label", "ordinal")
    images = int((predictions.labels >= 0).sum()) if single else len(predictions.paths)
    return {"wrong": len(wrong_images(predictions)), "images": images, "shown": shown}


def _view_finding(found: Mapping[str, Any]) -> dict[str, Any]:
    paths = found.get("paths", [])
    return {
        "severity": found.get("severity", "note"),
        "title": found.get("title", ""),
        "explanation": found.get("explanation", ""),
        "hint": found.get("hint", ""),
        "paths": paths[:MAX_PATHS],
        "more": max(len(paths) - MAX_PATHS, 0),
    }


def _view_stage(run: RunFiles, stage: StageConfig) -> dict[str, Any]:
    """Return a stage as planned, and how it went."""
    lines = [line for line in run.epochs if line.get("stage") == stage.name]
    metric = (stage.early_stopping or run.recipe.train.early_stopping).metric
    found = [(line["val"][metric], line["epoch"]) for line in lines if (line.get("val") or {}).get(metric) is not None]
    best = ""
    if found:
        value, epoch = min(found, key=lambda pair: pair[0] if is_lower_better(metric) else -pair[0])
        best = f"{metric} {value:.3f} in epoch {epoch}"
    unfreeze = stage.unfreeze if isinstance(stage.unfreeze, str) else ", ".join(stage.unfreeze)
    return {
        "name": stage.name,
        "trainable": "head only" if unfreeze == "none" else f"head and {unfreeze}",
        "epochs": f"{len(lines)} of {stage.epochs}",
        "learning_rate": f"{_format_learning_rate(run, stage)}, {stage.schedule.name}",
        "best": best,
    }


def _format_learning_rate(run: RunFiles, stage: StageConfig) -> str:
    if stage.learning_rate != "auto":
        return f"{stage.learning_rate:g}"
    measured = [rates.rates.max() for rates in stage_rates(run.recipe.train, run.epochs) if rates.name == stage.name]
    return f"auto: {measured[0]:.2g}" if measured else "auto"


def _list_environment(run: RunFiles) -> Iterator[tuple[str, str]]:
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
    if run.lock.get("images"):
        yield "images hashed", f"{len(run.lock['images']):,}"


def _list_commands(run: RunFiles) -> list[tuple[str, str]]:
    folder = shlex.quote(f"runs/{run.folder.name}" if run.folder.parent.name == "runs" else run.folder.name)
    members = [str(member["run"]) for member in run.soup.get("members", [])]
    again = shlex.join(["imagetune", "soup", *members]) if members else f"imagetune fit {folder}/recipe.yaml"
    repeat = ("Repeat this run", again)
    if run.status.get("state") != "finished":
        return [repeat]
    return [
        repeat,
        ("Predict new images", f"imagetune predict {folder} image.jpg folder/ --csv predictions.csv"),
        ("Evaluate on other labelled images", f"imagetune evaluate {folder} --data other/"),
        ("Review all runs in MLflow", "imagetune ui"),
        ("Use the model without imagetune", f'keras.models.load_model("{run.folder.name}/model.keras")'),
    ]


def _draw_curves(run: RunFiles) -> list[Drawing]:
    drawings = list(curve_drawings(run.epochs)) if run.epochs else []
    if rates := stage_rates(run.recipe.train, run.epochs):
        drawings.append(schedule_drawing(rates))
    return drawings
