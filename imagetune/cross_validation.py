"""A fit with cross-validation: the run itself, then a run for each part of the pictures left out in turn.

The run comes first and is the same as without folds: training, its model, its one test. The folds follow in
``folds/fold-N`` of its folder, each a complete run folder whose test pictures are the part that was left out, and an
MLflow run below the run's own. They use the pictures of training and validation; the test split stays closed to them.
A fold's recipe names the fold's own splits.csv as its source, so that fitting it again repeats the fold. What they say
together stands in the run's evaluation.json and report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from imagetune.core.messages import Say
from imagetune.data.folds import fold_splits
from imagetune.data.holdout import open_holdout
from imagetune.data.labels import label_rule
from imagetune.data.splits import Splits
from imagetune.evaluation.folds import Fold, folds_document, pooled_predictions
from imagetune.evaluation.predictions import read_predictions, write_predictions
from imagetune.model.manifest import read_manifest
from imagetune.recipe.data import ColumnsConfig
from imagetune.recipe.schema import Recipe
from imagetune.run_folder import RunFolder
from imagetune.runs import After, Data, RunResult, run_recipe
from imagetune.runs import fit as fit_once
from imagetune.testing import groups_of
from imagetune.tracking.tracker import Tracker
from imagetune.training.events import Listener
from imagetune.training.stopping import StopRequest


def fit(
    recipe_path: Path, overrides: Sequence[str], *, run_dir: Path | None, listener: Listener, say: Say
) -> RunResult:
    """Fine-tune as the recipe says, test once, and cross-validate where ``evaluate.folds`` says so.

    Raises:
        ImagetuneError: As `imagetune.runs.fit`; a fold that fails ends the run, whose model is complete by then.
    """

    def prepare(recipe: Recipe, data: Data, stop: StopRequest) -> After | None:
        if recipe.evaluate.folds is None:
            return None
        # Whatever is wrong with the folds shows before anything is trained.
        folds = fold_splits(data.catalog, data.audit, data.splits, folds=recipe.evaluate.folds, seed=recipe.split_seed)
        say("folds", f"{len(folds)}, of the {len(data.splits.train) + len(data.splits.val)} pictures without test")

        def cross_validate(settled: Recipe, folder: RunFolder, tracker: Tracker) -> dict[str, Any]:
            parent = tracker.wait_for_run()
            done = []
            for number, splits in enumerate(folds, start=1):
                say(
                    f"fold {number}/{len(folds)}",
                    f"{len(splits.train)} train, {len(splits.val)} val, {splits.test_count} left out",
                )
                place = folder.path / "folds" / f"fold-{number}"
                result = run_recipe(
                    _fold_recipe(settled, splits, place),
                    # The fold's tables are read from its folder again, where pictures have no relative paths.
                    replace(data, splits=replace(splits, root=place)),
                    run_dir=place,
                    listener=listener,
                    say=say,
                    stop=stop,
                    parent_run_id=parent,
                )
                done.append(_fold(result, splits, settled, folder))
            write_predictions(pooled_predictions(done), folder.predictions("folds"), root=data.splits.root)
            return {"folds": folds_document(done, config=settled.evaluate, seed=settled.seed)}

        return cross_validate

    return fit_once(recipe_path, overrides, run_dir=run_dir, listener=listener, say=say, prepare=prepare)


def _fold_recipe(recipe: Recipe, splits: Splits, place: Path) -> Recipe:
    """Return the recipe of a fold: the same training, without what only the run itself needs to be told.

    Its source is the table of the fold's splits, which its run writes anyway.

    Args:
        recipe: The whole run's.
        splits: The fold's.
        place: The fold's run folder.
    """
    config = recipe.data
    data = {
        "source": str(RunFolder(place).splits),
        "columns": ColumnsConfig(slices=config.columns.slices),
        # The table alone decides, also where a fold has no validation pictures.
        "split": config.split.model_copy(update={"val": 0.0, "test": 0.0}),
        "classes": config.classes if config.task == "regression" else splits.class_names,
    }
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
            "tracking": recipe.tracking.model_copy(update={"log_model": False}),
        }
    )


def _fold(result: RunResult, splits: Splits, recipe: Recipe, whole: RunFolder) -> Fold:
    folder = RunFolder(result.folder)
    figures = (result.evaluation or {})["splits"]["test"]["figures"]
    thresholds = read_manifest(folder.model).thresholds
    return Fold(
        folder=folder.path.relative_to(whole.path).as_posix(),
        train=len(splits.train),
        val=len(splits.val),
        best_epoch=result.best.epoch,
        predictions=read_predictions(folder.predictions("test"), rule=label_rule(recipe.data), thresholds=thresholds),
        groups=groups_of(open_holdout(splits)),
        figures={name: figure["value"] for name, figure in figures.items()},
    )
