"""k-fold cross-validation of a run: each fold is held out once, and a model trained on the others is tested on it.

The whole run comes first and is the same as without folds: training, its model, its one test. The folds follow in
``folds/fold-N`` of its folder, each a complete run folder whose test images are the fold, and a child run in MLflow.
They use the images of training and validation; the test split stays closed to them. A fold's recipe names the fold's
own splits.csv as its source, so that fitting it again repeats the fold. The run's evaluation.json and report show the
metrics of all folds together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagetune.core.messages import Say
from imagetune.data.sources.labels import build_label_rule
from imagetune.data.splits.folds import build_cross_validation_folds
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits
from imagetune.evaluation.cross_validation import Fold, describe_folds, pool_predictions
from imagetune.evaluation.predictions import read_predictions, write_predictions
from imagetune.model.manifest import read_manifest
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import ColumnsConfig, DataConfig
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.prepare import Data
from imagetune.runs.run import Run, RunResult, run_recipe
from imagetune.runs.test import list_groups
from imagetune.training.setup.stopping import StopRequest


def build_folds(recipe: Recipe, data: Data, *, say: Say) -> tuple[Splits, ...]:
    """Return the splits of the ``evaluate.folds`` folds; none without that key.

    Raises:
        DataError: The images can't be split into so many folds.
    """
    count = recipe.evaluate.folds
    if count is None:
        return ()
    folds = build_cross_validation_folds(data.catalog, data.audit, data.splits, folds=count, seed=recipe.split_seed)
    say("folds", f"{len(folds)}, of the {len(data.splits.train) + len(data.splits.val)} images without test")
    return folds


def cross_validate(run: Run, folds: Sequence[Splits], data: Data, *, say: Say, stop: StopRequest) -> dict[str, Any]:
    """Train and test a model for every fold, and return the cross-validated metrics.

    Args:
        run: The whole run, tested; its listener receives the folds' progress, too.
        folds: The result of `build_folds`.
        data: The whole run's images.
        say: Receives progress messages.
        stop: Checked after every step.

    Returns:
        The key ``folds`` of evaluation.json with its content.

    Raises:
        ImagetuneError: A fold failed.
    """
    recipe = run.recipe
    # Waited for, as a fold's run in MLflow has to name its parent; without one in time it is a run of its own.
    parent = run.tracker.wait_for_run() if run.tracker else None
    done = []
    for number, splits in enumerate(folds, start=1):
        counts = f"{len(splits.train)} train, {len(splits.val)} val, {splits.test_count} held out"
        say(f"fold {number}/{len(folds)}", counts)
        place = run.folder.fold(number)
        result = run_recipe(
            _fold_recipe(recipe, splits, place),
            # The fold's tables are read from its folder again, where images have no relative paths.
            replace(data, splits=replace(splits, root=place)),
            run_dir=place,
            listener=run.recorder.listener,
            say=say,
            stop=stop,
            parent_run_id=parent,
        )
        done.append(_read_fold(result, splits, recipe.data, run.folder))
    write_predictions(pool_predictions(done), run.folder.predictions("folds"), root=data.splits.root)
    return {"folds": describe_folds(done, config=recipe.evaluate, seed=recipe.seed)}


def _fold_recipe(recipe: Recipe, splits: Splits, place: Path) -> Recipe:
    """Return the recipe of a fold: the same training, with a short evaluation, on the table of the fold's splits.

    Args:
        recipe: The recipe of the whole run.
        splits: The splits of the fold.
        place: The run folder of the fold, whose run writes the table.
    """
    config = recipe.data
    data = {
        "source": str(RunFolder(place).splits),
        # splits.csv has the default columns, whatever those of the source are called.
        "columns": ColumnsConfig(slices=config.columns.slices),
        # The table alone decides, also where a fold has no validation images.
        "split": config.split.model_copy(update={"val": 0.0, "test": 0.0}),
        "classes": config.classes if config.task == "regression" else splits.class_names,
    }
    # Requirements, plots and diagnoses are about the one model that is kept; a fold only adds to the estimate.
    evaluate = {
        "folds": None,
        "require": (),
        "baselines": False,
        "label_errors": False,
        "slices": False,
        "explain": 0,
        "robustness": None,
        "out_of_distribution": "off",
    }
    return recipe.model_copy(
        update={
            "data": config.model_copy(update=data),
            "evaluate": recipe.evaluate.model_copy(update=evaluate),
            # A fold's model serves the estimate alone; the tracking server gets its metrics only.
            "tracking": recipe.tracking.model_copy(update={"log_model": False}),
        }
    )


def _read_fold(result: RunResult, splits: Splits, config: DataConfig, whole: RunFolder) -> Fold:
    """Return the predictions and metrics of a fold, read from its finished run."""
    folder = RunFolder(result.folder)
    metrics = result.evaluation["splits"]["test"]["metrics"]
    thresholds = read_manifest(folder.model).thresholds
    return Fold(
        folder=folder.path.relative_to(whole.path).as_posix(),
        train=len(splits.train),
        val=len(splits.val),
        best_epoch=result.evaluation["best_epoch"],
        predictions=read_predictions(folder.predictions("test"), rule=build_label_rule(config), thresholds=thresholds),
        groups=list_groups(open_holdout(splits)),
        metrics={name: metric["value"] for name, metric in metrics.items()},
    )
