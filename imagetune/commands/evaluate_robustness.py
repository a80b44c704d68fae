"""Robustness test of a finished run: its metrics on corrupted versions of its own test images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from imagetune.core.messages import Say, say_nothing
from imagetune.data.splits.holdout import open_holdout
from imagetune.errors import DataError, ModelFileError
from imagetune.evaluation.robustness.measure import Subject, measure_robustness
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.sections.evaluate import RobustnessConfig
from imagetune.reports.tiles import RunTiles
from imagetune.run_folder.reader import read_evaluation
from imagetune.run_folder.receipt import renew_receipt
from imagetune.runs.open import open_run, read_run_splits
from imagetune.runs.pages import send_changes, write_pages


def evaluate_robustness(
    run: str, *, say: Say = say_nothing, progress: Callable[[int, int], None] | None = None
) -> dict[str, Any]:
    """Measure a run's robustness to corruptions, and write the result into its folder.

    The corruptions are those of ``evaluate.robustness``, or all by default. evaluation.json gets the key
    ``robustness``, and the report is written again; everything else stays. Where the run is tracked, MLflow gets both.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        say: Receives what could not be sent to MLflow.
        progress: Called with how many corrupted images the model has seen, and how many there are.

    Returns:
        The whole of evaluation.json.

    Raises:
        ModelFileError: It is no finished run.
        DataError: It has no test images, or one of them can't be read.
    """
    folder, loaded = open_run(run)
    # The result is a part of evaluation.json; alone it would pass for a test that was never made.
    if not folder.evaluation.is_file():
        raise ModelFileError("has no evaluation.json: the run ended before its test", where=str(folder.path))
    recipe = load_recipe(folder.recipe).recipe
    splits = read_run_splits(folder, recipe.data, loaded.class_names)
    subject = Subject(
        model=loaded.model,
        data=recipe.data,
        evaluate=recipe.evaluate,
        seed=recipe.seed,
        batch_size=recipe.evaluate.batch_size or recipe.train.pass_size,
        config=recipe.evaluate.robustness or RobustnessConfig(),
        class_names=loaded.class_names,
        thresholds=tuple(loaded.thresholds),
        root=Path(splits.root),
        tiles=RunTiles(folder.path),
    )
    # The measurement leaves images in the folder.
    with renew_receipt(folder.path):
        found = measure_robustness(subject, open_holdout(splits), progress=progress)
        if found is None:
            raise DataError("has no test images to corrupt", where=str(folder.path), hint="hold some out by data.split")
        # Read after the measurement, which takes minutes: another command may have added to the file meanwhile.
        document = read_evaluation(folder.evaluation)
        document["robustness"] = found
        folder.write_evaluation(document)
        write_pages(folder)
    send_changes(folder, say=say)
    return document
