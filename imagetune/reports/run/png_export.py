"""The plots of a run as PNG files, for MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from imagetune.core import run_files
from imagetune.reports.plots.confusion_matrix import plot_confusion_matrix
from imagetune.reports.plots.learning_curves import is_only_solved, plot_learning_curves
from imagetune.reports.plots.lr_schedule import compute_stage_learning_rates, plot_schedule
from imagetune.reports.plots.residuals import plot_residuals
from imagetune.reports.style import drawing_style, save_png
from imagetune.run_folder.reader import RunFiles, read_run


def write_plots(run_dir: Path) -> tuple[Path, ...]:
    """Write the plots that the run folder has data for.

    Returns:
        The files written: ``learning_curves.png``, ``schedule.png``, and ``confusion_matrix.png`` or
        ``predicted_values.png`` in ``plots``, each if there is something to show.
    """
    run = read_run(run_dir)
    written = []
    for name, draw in _list_plots(run).items():
        path = run_dir / run_files.PLOTS / f"{name}.png"
        with drawing_style():
            save_png(draw(), path)
        written.append(path)
    return tuple(written)


def _list_plots(run: RunFiles) -> dict[str, Callable[[], Figure]]:
    available: dict[str, Callable[[], Figure]] = {}
    if run.epochs and not is_only_solved(run.epochs):
        available["learning_curves"] = lambda: plot_learning_curves(run.epochs)
    if rates := compute_stage_learning_rates(run.recipe.train, run.epochs):
        available["schedule"] = lambda: plot_schedule(rates)
    split = run.tested_split
    predictions = run.tested_predictions
    if predictions is not None and predictions.rule.task == "regression":
        true, predicted = predictions.targets[:, 0], predictions.probabilities[:, 0]
        available["predicted_values"] = lambda: plot_residuals(true, predicted, predictions.class_names[0])
    if split is not None and "confusion_matrix" in split:
        matrix = np.array(split["confusion_matrix"], dtype=np.int64)
        available["confusion_matrix"] = lambda: plot_confusion_matrix(matrix, run.evaluation["class_names"])
    return available
