"""The report of a run, report.html: one page made from the run folder and its images alone.

The page needs no network: styles, script, drawings and thumbnails are inside. What the run never wrote is left out, and
the page says so.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imagetune.core import run_files
from imagetune.core.documents import HINT
from imagetune.core.files import read_bounded_text
from imagetune.errors import ModelFileError
from imagetune.evaluation.errors.mistakes import find_mistakes
from imagetune.recipe.metrics import (
    METRICS,
    is_lower_better,
    list_card_metrics,
    list_class_metrics,
)
from imagetune.recipe.sections.train import StageConfig
from imagetune.reports.fold import fold_sections
from imagetune.reports.page import html_environment, write_page
from imagetune.reports.plots.confusion_matrix import draw_confusion_matrix, select_shown_classes
from imagetune.reports.plots.learning_curves import draw_learning_curves, is_only_solved
from imagetune.reports.plots.lr_schedule import compute_stage_learning_rates, draw_schedule
from imagetune.reports.run.overview import (
    count_images_per_split,
    describe_problem,
    get_evaluated_task,
    list_run_facts,
    view_metric,
    view_requirements,
)
from imagetune.reports.sections.baselines import view_baselines
from imagetune.reports.sections.class_imbalance import ClassBalance, compute_class_balance
from imagetune.reports.sections.explanations import view_saliency_maps
from imagetune.reports.sections.folds import view_folds
from imagetune.reports.sections.galleries import view_galleries
from imagetune.reports.sections.label_errors import view_label_errors
from imagetune.reports.sections.mistakes import view_worst_mistakes
from imagetune.reports.sections.ordinal_and_multilabel import view_label_confusions, view_rank_errors
from imagetune.reports.sections.out_of_distribution import view_out_of_distribution
from imagetune.reports.sections.power import view_power
from imagetune.reports.sections.probabilities import (
    view_calibration,
    view_conformal_prediction,
    view_costs,
    view_operating_point,
    view_probability_curves,
    view_selective_prediction,
)
from imagetune.reports.sections.residuals import view_residuals
from imagetune.reports.sections.robustness import view_robustness
from imagetune.reports.sections.slices import view_slices
from imagetune.reports.style import Drawing
from imagetune.run_folder.reader import SPLITS, RunFiles, read_run

# The template of each section, and the function that returns what it shows: None where the run has nothing of it.
SECTIONS: Mapping[str, Callable[[RunFiles], Mapping[str, Any] | None]] = {
    "rank_errors": view_rank_errors,
    "label_confusions": view_label_confusions,
    "power": view_power,
    "folds": view_folds,
    "slices": view_slices,
    "baselines": view_baselines,
    "operating_point": view_operating_point,
    "costs": view_costs,
    "calibration": view_calibration,
    "selective": view_selective_prediction,
    "conformal": view_conformal_prediction,
    "curves": view_probability_curves,
    "galleries": view_galleries,
    "label_errors": view_label_errors,
    "out_of_distribution": view_out_of_distribution,
    "explanations": view_saliency_maps,
    "robustness": view_robustness,
}
# What a reviewer reads first; all else is one click away, or a link of the list at the top.
_UNFOLDED = (
    *(f"{name.capitalize()} metrics" for name in SPLITS.values()),
    *(
        "Requirements",
        "Metrics per split",
        "Learning curves",
        "Confusion matrix",
        "Residuals",
        "Model soup",
        "Commands",
    ),
)
MAX_CONFUSIONS = 6
MAX_SCRIPT_BYTES = 1 << 20
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
    page = (
        html_environment()
        .get_template("report.html.jinja")
        .render(
            run=run,
            facts=list(list_run_facts(run)),
            problem=describe_problem(run),
            tested=tested,
            tested_name=SPLITS[run.tested_name],
            confidence=100 * run.evaluation.get("bootstrap", {}).get("confidence", 0.95),
            task=get_evaluated_task(run),
            cards=[view_metric(run, name) for name in list_card_metrics(get_evaluated_task(run))] if tested else [],
            requirements=view_requirements(run),
            metrics=[view_metric(run, name) for name in METRICS if name in tested["metrics"]] if tested else [],
            splits={split: name for split, name in SPLITS.items() if split in run.evaluation.get("splits", {})},
            only_solved=is_only_solved(run.epochs),
            curves=_draw_curves(run),
            confusion=_draw_confusion(run),
            confusions=list(_list_confusions(run)),
            classes=sorted(tested.get("per_class", []), key=_rank_by_f1) if tested else [],
            class_columns={name: METRICS[name].heading for name in list_class_metrics(get_evaluated_task(run))},
            residuals=view_residuals(run),
            balance=_compute_balance(run),
            mistakes=_view_mistakes(run),
            sections=list(_view_sections(run)),
            images=count_images_per_split(run),
            findings=[_view_finding(found) for found in run.audit.get("findings", [])],
            stages=[_view_stage(run, stage) for stage in run.recipe.train.stages],
            environment=list(_list_environment(run)),
            script=_read_script(run),
            commands=_list_commands(run),
        )
    )
    return fold_sections(page, unfolded=_UNFOLDED)


def _view_sections(run: RunFiles) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, part in SECTIONS.items():
        try:
            found = part(run)
        except Exception as error:
            error.add_note(f"in the section {name!r} of the report, which shows {run_files.EVALUATION}")
            raise
        if found is not None:
            yield f"{name}.html.jinja", found


def _draw_confusion(run: RunFiles) -> dict[str, Any] | None:
    tested = run.tested_split
    if tested is None or "confusion_matrix" not in tested:
        return None
    matrix = np.array(tested["confusion_matrix"], dtype=np.int64)
    names = run.evaluation["class_names"]
    left_out = len(names) - len(select_shown_classes(matrix))
    return {"drawing": draw_confusion_matrix(matrix, names), "left_out": left_out}


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
    # The worst class first, those without images last.
    return f1 is None, f1 or 0.0


def _compute_balance(run: RunFiles) -> ClassBalance | None:
    """Return the class balance of the run; None where classes are of nearly equal size or the task has none."""
    if run.tested_split is None or run.recipe.data.task not in ("single_label", "ordinal"):
        return None
    counts = Counter(row["label"] for row in run.rows if row["split"] == "train")
    return compute_class_balance(run.recipe.train, counts, run.tested_split["per_class"])


def _view_mistakes(run: RunFiles) -> dict[str, Any] | None:
    """Return the worst mistakes; None where there are no predictions."""
    predictions = run.tested_predictions
    if predictions is None:
        return None
    most = run.recipe.evaluate.mistakes
    shown = list(view_worst_mistakes(predictions, root=run.images_root, config=run.recipe.data, most=most))
    single = predictions.rule.task in ("single_label", "ordinal")
    images = int((predictions.labels >= 0).sum()) if single else len(predictions.paths)
    return {"wrong": len(find_mistakes(predictions)), "images": images, "shown": shown}


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
        "learning_rate": _format_solver(lines)
        if stage.solve is True
        else f"{_format_learning_rate(run, stage)}, {stage.schedule.name}",
        "best": best,
        "outcome": _describe_outcome(run, stage.name),
    }


def _describe_outcome(run: RunFiles, name: str) -> str:
    """Return whether a stage that had to beat its start was kept, and why it was dropped; empty for others."""
    judged = [line["judged"] for line in run.stages if line.get("name") == name and "judged" in line]
    if not judged:
        return ""
    found = judged[-1]
    if found["gain"] is None:
        return "dropped: no epoch of it was better than the best one before"
    gain = (
        f"its validation loss is {abs(found['gain']):.3g} {'lower' if found['gain'] > 0 else 'higher'} than before it"
    )
    needed = f"{found['required'] * found['standard_error']:.3g} lower was needed"
    return f"kept: {gain}" if found["kept"] else f"dropped: {gain}, {needed}"


def _format_solver(lines: Sequence[Mapping[str, Any]]) -> str:
    found = (lines[-1].get("solved") or {}) if lines else {}
    strength = f", C {found['strength']:g} by cross-validation" if "strength" in found else ""
    return f"solved by L-BFGS{strength}"


def _format_learning_rate(run: RunFiles, stage: StageConfig) -> str:
    if stage.learning_rate != "auto":
        return f"{stage.learning_rate:g}"
    # The recipe only says auto: what was measured is the peak of the recorded learning rates.
    measured = [
        rates.rates.max()
        for rates in compute_stage_learning_rates(run.recipe.train, run.epochs)
        if rates.name == stage.name
    ]
    return f"auto: {measured[0]:.2g}" if measured else "auto"


def _read_script(run: RunFiles) -> str:
    """Return the text of the run's predict.py; empty where the run ended before it had a model."""
    path = run.folder / run_files.PREDICT_SCRIPT
    try:
        return read_bounded_text(path, max_bytes=MAX_SCRIPT_BYTES)
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"can't be read: {error}", where=str(path), hint=HINT) from error


def _list_environment(run: RunFiles) -> Iterator[tuple[str, str]]:
    for name, version in run.lock.get("versions", {}).items():
        yield str(name), str(version)
    for name, value in run.lock.get("platform", {}).items():
        if name == "memory_bytes":
            yield "memory", f"{value / 2**30:.1f} GiB"
        else:
            yield str(name), str(value)
    for name, value in run.lock.get("weights", {}).items():
        if name in ("source", "sha256", "license", "note") and value:
            yield f"weights {name}", str(value)
    if run.lock.get("images"):
        yield "images hashed", f"{len(run.lock['images']):,}"


def _list_commands(run: RunFiles) -> list[tuple[str, str]]:
    # A folder's name may hold blanks, but the command must work as it is copied.
    folder = shlex.quote(f"runs/{run.folder.name}" if run.folder.parent.name == "runs" else run.folder.name)
    # A soup has no training of its own to repeat: it is made of its members again.
    members = [str(member["run"]) for member in run.soup.get("members", [])]
    again = shlex.join(["imagetune", "soup", *members]) if members else f"imagetune fit {folder}/recipe.yaml"
    repeat = ("Repeat this run", again)
    # The other commands need the model of a finished run.
    if run.status.get("state") != "finished":
        return [repeat]
    return [
        repeat,
        ("Predict new images", f"imagetune predict {folder} image.jpg folder/ --csv predictions.csv"),
        ("Evaluate on other labelled images", f"imagetune evaluate {folder} --data other/"),
        ("Review all runs in MLflow", "imagetune ui"),
        ("Use the model without imagetune, by Keras and Pillow alone", f"python {folder}/predict.py image.jpg"),
    ]


def _draw_curves(run: RunFiles) -> list[Drawing]:
    if is_only_solved(run.epochs):
        return []
    drawings = list(draw_learning_curves(run.epochs)) if run.epochs else []
    if rates := compute_stage_learning_rates(run.recipe.train, run.epochs):
        drawings.append(draw_schedule(rates))
    return drawings
