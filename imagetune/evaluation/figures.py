"""The pictures of a run as PNG files, for the tracker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from imagetune.evaluation.curves import curves_figure
from imagetune.evaluation.drawing import drawing_style
from imagetune.evaluation.heatmap import confusion_figure
from imagetune.evaluation.run_files import RunFiles, read_run
from imagetune.files import atomic_path

PNG_DOTS_PER_INCH = 150


def write_figures(run_dir: Path) -> tuple[Path, ...]:
    """Draw what the run folder has figures for.

    Returns:
        The files written: ``plots/learning_curves.png`` and ``plots/confusion_matrix.png``, each if there is something
        to show.
    """
    run = read_run(run_dir)
    written = []
    for name, draw in _available(run).items():
        path = run_dir / "plots" / f"{name}.png"
        with drawing_style():
            figure = draw()
            with atomic_path(path) as temporary:
                figure.savefig(
                    temporary, format="png", dpi=PNG_DOTS_PER_INCH, facecolor="white", metadata={"Software": None}
                )
        written.append(path)
    return tuple(written)


def _available(run: RunFiles) -> dict[str, Callable[[], Figure]]:
    available: dict[str, Callable[[], Figure]] = {}
    if run.epochs:
        available["learning_curves"] = lambda: curves_figure(run.epochs)
    split = run.tested_split
    if split is not None:
        matrix = np.array(split["confusion_matrix"], dtype=np.int64)
        available["confusion_matrix"] = lambda: confusion_figure(matrix, run.evaluation["class_names"])
    return available
