"""Cross-validated trial: its objective is the mean over folds, each trained in a run folder inside the trial's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from imagetune.core import run_files
from imagetune.core.files import write_json
from imagetune.core.messages import say_nothing
from imagetune.data.splits.folds import build_selection_folds
from imagetune.data.splits.splits import Splits, write_splits_csv
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import ColumnsConfig
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.prepare import Data
from imagetune.runs.run import start_run
from imagetune.search.executors.protocol import Outcome, Task
from imagetune.search.trial_process.probe import split_into_probe_folds
from imagetune.search.trial_process.shared import Shared
from imagetune.search.trial_process.train import TrainingOutcome, TrialTraining, run_training
from imagetune.training.setup.stopping import StopRequest


def check_folds(data: Data, recipe: Recipe) -> None:
    """Check that the images can be divided into the folds of a search's trials or probes.

    Raises:
        DataError: There are too few images or groups for so many folds.
    """
    search = recipe.search
    if search.algorithm == "bakeoff":
        split_into_probe_folds(data, recipe)
    if search.folds is not None:
        build_selection_folds(data.catalog, data.audit, data.splits, folds=search.folds, seed=recipe.split_seed)


def train_folds(shared: Shared, task: Task, stop: StopRequest) -> Outcome:
    """Train on every fold, and write the mean, the standard deviation and each fold's metric to ``trial.json``.

    Decoded images and features are cached once for all folds, so that a fold with a frozen backbone costs no more than
    the training of its head.
    """
    count = shared.config.folds or 1
    data, recipe = shared.data, task.recipe
    with start_run(recipe, task.folder, say=say_nothing, pages=False) as run:
        folds = build_selection_folds(data.catalog, data.audit, data.splits, folds=count, seed=recipe.split_seed)
        done: list[TrainingOutcome] = []
        for number, splits in enumerate(folds, start=1):
            run.recorder.epoch = sum(one.epochs for one in done)
            # The fold's own progress is in its own folder; who watches the trial looks into this one.
            run.recorder.stage = f"fold {number}"
            run.recorder.beat()
            done.append(run_training(_lesson(shared, task, splits, number), stop=stop))
        document = build_fold_document(done, folds, objective=shared.config.objective)
        write_json(run.folder.path / run_files.TRIAL_FOLDS, document)
    return Outcome("completed", document["mean"], sum(one.epochs for one in done))


def build_fold_document(done: Sequence[TrainingOutcome], folds: Sequence[Splits], *, objective: str) -> dict[str, Any]:
    """Return the content of ``trial.json``.

    Args:
        done: Result of the training of each fold.
        folds: Splits of each fold.
        objective: Name of the validation metric.

    Returns:
        ``mean`` and ``standard_deviation`` (of the folds' metrics, with n - 1) and, for each fold, its run folder, how
        many images it has, its best metric and the epoch that reached it.
    """
    metrics = [one.objective for one in done]
    return {
        "objective": objective,
        "mean": fmean(metrics),
        "standard_deviation": stdev(metrics) if len(metrics) > 1 else None,
        "folds": [
            {
                "folder": locate_fold(number),
                "train": len(splits.train),
                "val": len(splits.val),
                "metric": one.objective,
                "best_epoch": one.best_epoch,
            }
            for number, (one, splits) in enumerate(zip(done, folds, strict=True), start=1)
        ],
    }


def locate_fold(number: int) -> str:
    """Return the path of a fold's run folder below its trial's; folds count from 1."""
    return RunFolder(Path()).fold(number).as_posix()


def _lesson(shared: Shared, task: Task, splits: Splits, number: int) -> TrialTraining:
    place = task.folder / locate_fold(number)
    return TrialTraining(
        recipe=_fold_recipe(task.recipe, splits, place),
        data=replace(shared.data, splits=splits),
        folder=place,
        objective=shared.config.objective,
        until_epoch=task.epochs,
        continues=None if task.continues is None else task.continues / locate_fold(number),
        continued=shared.continues_trials,
    )


def _fold_recipe(recipe: Recipe, splits: Splits, place: Path) -> Recipe:
    """Return the recipe of a fold, and write the table of its splits, which is the recipe's source."""
    table = RunFolder(place).splits
    place.mkdir(parents=True, exist_ok=True)
    config = recipe.data
    data = {
        "source": str(table),
        # splits.csv has the default columns, whatever those of the source are called.
        "columns": ColumnsConfig(slices=config.columns.slices),
        # The table says which split each image is in; nothing is split again.
        "split": config.split.model_copy(update={"val": 0.0, "test": 0.0}),
        "classes": config.classes if config.task == "regression" else splits.class_names,
    }
    # Read from the fold's folder again, where images have no relative paths.
    write_splits_csv(replace(splits, root=place), table)
    return recipe.model_copy(update={"data": config.model_copy(update=data)})
