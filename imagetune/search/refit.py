"""Refit of a search's winner: trained once more, and tested once."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median_low, stdev
from typing import Any

from imagetune.core import run_files
from imagetune.core.csv_tables import write_csv
from imagetune.core.documents import SURPRISES
from imagetune.core.files import convert_disk_errors, read_json_object
from imagetune.core.messages import Say, say_nothing
from imagetune.core.text import format_count
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits
from imagetune.errors import DataError, ImagetuneError
from imagetune.evaluation.document import list_failed_requirements
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import ColumnsConfig
from imagetune.recipe.sections.train import EarlyStoppingConfig, StageConfig
from imagetune.run_folder.folder import RunFolder, write_recipe
from imagetune.runs.prepare import Data, read_data
from imagetune.runs.resume import find_begun_run
from imagetune.runs.run import run_recipe
from imagetune.search.proposers.finalists import Candidate
from imagetune.training.setup.events import Listener
from imagetune.training.setup.stopping import StopRequest


@dataclass(frozen=True)
class Refit:
    """The refit of the winner, a finished run.

    Attributes:
        folder: Its run folder.
        evaluation: Content of its evaluation.json.
        missed: Requirements (``evaluate.require``) that the test missed, and by how much.
        fresh: Whether this session trained it, and not an earlier one.
    """

    folder: Path
    evaluation: dict[str, Any] | None
    missed: tuple[str, ...]
    fresh: bool = True


def refit(
    recipe: Recipe,
    data: Data,
    *,
    folder: Path,
    parent_run_id: str | None,
    listener: Listener,
    say: Say,
    stop: StopRequest,
) -> Refit:
    """Train the winner's recipe and test it, the only time that a search opens the test split.

    What an interrupted session left in the folder is gone on with, if it is a training of this recipe.

    A finished run of an earlier winner, which more trials have beaten, is kept beside it as ``best-1``, ``best-2``, ...

    Args:
        recipe: Recipe from `build_refit_recipe`.
        data: Images of the recipe.
        folder: The run folder to make.
        parent_run_id: Id of the search's MLflow run; None where it isn't tracked.
        listener: Called with the training's progress.
        say: Prints a line for the user.
        stop: Request to stop, checked after every step.
    """
    make_room(folder, recipe)
    run = run_recipe(recipe, data, run_dir=folder, listener=listener, say=say, stop=stop, parent_run_id=parent_run_id)
    return Refit(run.folder, run.evaluation, run.missed)


def find_finished_refit(folder: Path, recipe: Recipe) -> Refit | None:
    """Return the refit that an earlier session has finished; None where it is still to be trained.

    Args:
        folder: Run folder of the refit.
        recipe: Recipe of the refit now; a run of another recipe is none.
    """
    best = RunFolder(folder)
    if best.read_status().get("state") != "finished" or not best.evaluation.is_file():
        return None
    # A run that can't be read is trained again: `make_room` moves it aside and loses nothing.
    with contextlib.suppress(ImagetuneError, OSError, *SURPRISES):
        evaluation = read_json_object(best.evaluation)
        if _trained_with(best, recipe):
            return Refit(folder, evaluation, list_failed_requirements(evaluation, recipe.evaluate.require), fresh=False)
    return None


def make_room(folder: Path, recipe: Recipe) -> None:
    """Make ``folder`` free for the training of a recipe, unless it holds one that was stopped and can be gone on with.

    A finished run moves aside; an unfinished one of another recipe, or without a sound checkpoint, is removed.
    """
    if not folder.exists():
        return
    with convert_disk_errors(folder):
        if RunFolder(folder).read_status().get("state") == "finished":
            # Never removed: it is a tested model, whose test can't be undone.
            folder.rename(run_files.next_numbered(folder))
        elif not _can_go_on(folder, recipe):
            shutil.rmtree(folder)


def _can_go_on(folder: Path, recipe: Recipe) -> bool:
    """Return whether an unfinished run is one of this recipe that has been trained for at least a step."""
    # Nothing of a run that can't be read is worth keeping: it was never tested.
    with contextlib.suppress(ImagetuneError, OSError, *SURPRISES):
        begun = find_begun_run(folder, resume=True)
        return begun is not None and begun.point is not None and _trained_with(begun.folder, recipe)
    return False


def write_best(recipe: Recipe, winner: Candidate, *, folder: Path, objective: str, fitted: str) -> None:
    """Write ``best.yaml`` into a search's folder, with the winner's validation metric as a comment at its head.

    Args:
        recipe: Recipe that `imagetune fit best.yaml` repeats.
        winner: The winning settings with their trials.
        folder: Run folder of the search.
        objective: Name of the validation metric.
        fitted: One line on the images and epochs that it is trained with.
    """
    metrics = winner.objectives
    one = f"{objective} {winner.mean:.4f} on validation"
    spread = f", standard deviation {stdev(metrics):.4f}" if len(metrics) > 1 else ""
    seeds = f", the mean over {len(metrics)} seeds{spread}" if len(metrics) > 1 else ", one seed"
    lines = [
        f"The best settings of the search in {folder}",
        f"Trial {winner.trial.trial_id}: {one}{seeds}",
        fitted,
        "imagetune fit best.yaml repeats the training and the test of best/",
    ]
    write_recipe(recipe, folder / run_files.BEST_RECIPE, heading=lines)


def build_refit_recipe(
    recipe: Recipe, winner: Candidate, data: Data, *, folder: Path, say: Say
) -> tuple[Recipe, Data, str]:
    """Return the recipe of the refit, its images, and one line on what it trains on.

    ``search.refit: train`` is the winner's own recipe. With ``train_and_val`` the validation images are trained on as
    well, for the epochs after which validation was best (the median over the winner's seeds), and the last weights are
    kept: there is nothing left to stop by.

    Args:
        recipe: The complete recipe of the winner.
        winner: The winning settings with their trials.
        data: The images of the search.
        folder: Run folder of the search; a table of the images is written there where the recipe alone can't give these
            splits.
        say: Prints a line for the user.

    Raises:
        DataError: The images have changed since the search began.
    """
    if recipe.search.refit == "train":
        return recipe, data, "It is trained on the training images; the validation images choose its best epoch"
    recipe, epochs = _cut_to_best(recipe, winner)
    split = recipe.data.split.model_copy(update={"val": 0.0, "seed": recipe.split_seed})
    plain = recipe.model_copy(update={"data": recipe.data.model_copy(update={"split": split})})
    recipe, merged = _merge(plain, data, folder)
    images = f"{len(merged.splits.train)} images of training and validation together"
    say("refit", f"{images}, {format_count(epochs, 'epoch')}")
    fitted = f"It is trained on training and validation images together for {epochs} epochs, as many as were best"
    return recipe, merged, fitted


def cut_to_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """Return the recipe with its stages, in order, cut to ``epochs`` epochs in all."""
    stages: list[StageConfig] = []
    for stage in recipe.train.stages:
        if epochs <= 0:
            break
        stages.append(stage.model_copy(update={"epochs": min(stage.epochs, epochs)}))
        epochs -= stage.epochs
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"stages": tuple(stages)})})


def compute_best_epochs(winner: Candidate) -> int | None:
    """Return the best number of epochs by validation: the (lower) median over the winner's seeds; None if unknown."""
    known = [result.best_epoch for result in winner.results if result.best_epoch is not None]
    # The lower one is a whole number of epochs that a seed really had.
    return median_low(known) if known else None


def _cut_to_best(recipe: Recipe, winner: Candidate) -> tuple[Recipe, int]:
    """Return the recipe without early stopping for as many epochs as were best, and how many those are."""
    whole = sum(stage.epochs for stage in recipe.train.stages)
    epochs = min(compute_best_epochs(winner) or winner.trial.epochs or whole, whole)
    cut = cut_to_epochs(recipe, epochs)
    stages = tuple(stage.model_copy(update={"early_stopping": None}) for stage in cut.train.stages)
    metric = recipe.train.early_stopping.metric
    stopping = EarlyStoppingConfig(metric=metric, keep="last")
    train = cut.train.model_copy(update={"stages": stages, "early_stopping": stopping})
    return cut.model_copy(update={"train": train}), epochs


def _merge(recipe: Recipe, data: Data, folder: Path) -> tuple[Recipe, Data]:
    """Return a recipe that trains on training and validation images and tests on the same, and its images."""
    # Without a table where the recipe alone gives these splits: best.yaml then names the user's own images.
    if (found := _read_same_test(recipe, data)) is not None:
        return recipe, found
    table, classes = folder / run_files.IMAGES_TABLE, recipe.data.classes
    _write_table(data.splits, recipe.data.columns, table)
    # The table is read without the folders that named and ordered the classes.
    if recipe.data.task != "regression":
        classes = data.splits.class_names
    update = {"source": str(table), "classes": classes}
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update=update)})
    if (found := _read_same_test(recipe, data)) is None:
        raise DataError("the images have changed since the search began", where=str(table))
    return recipe, found


def _read_same_test(recipe: Recipe, data: Data) -> Data | None:
    """Return the recipe's images where they are those of the search with nothing in validation, else None."""
    try:
        # The search has reported on these images already.
        found = read_data(recipe, say=say_nothing)
    except DataError:
        return None
    before, after = data.splits, found.splits
    same = not after.val and after.class_names == before.class_names
    same &= _fingerprints((*before.train, *before.val), data) == _fingerprints(after.train, found)
    same &= _fingerprints(open_holdout(before), data) == _fingerprints(open_holdout(after), found)
    return found if same else None


def _fingerprints(records: Iterable[Record], data: Data) -> set[tuple[str, str, str | None]]:
    """Return path, label and SHA-256 of each image."""
    return {(str(Path(record.path)), record.label, data.audit.hashes.get(record.path)) for record in records}


def _write_table(splits: Splits, columns: ColumnsConfig, path: Path) -> None:
    """Write a table of all images, by absolute path, with those of training and validation in the train split."""
    own = (columns.path, columns.label, columns.split, columns.group)
    slices = [name for name in columns.slices if name not in own]
    sides = {"train": (*splits.train, *splits.val), "test": open_holdout(splits)}
    rows = (
        (record.path, record.label, side, record.group or "", *(dict(record.slices).get(name, "") for name in slices))
        for side, records in sides.items()
        for record in records
    )
    write_csv(path, (*own, *slices), rows)


def _settle_as_then(stage: StageConfig, then: StageConfig) -> StageConfig:
    """Return a stage with what became of its ``solve: auto`` in an earlier session."""
    return stage.model_copy(update={"solve": then.solve, "epochs": then.epochs}) if stage.solve == "auto" else stage


def _trained_with(best: RunFolder, recipe: Recipe) -> bool:
    """Return whether a run was trained with this recipe, apart from what was ``auto`` in it."""
    then = load_recipe(best.recipe).recipe
    data = recipe.data.model_copy(update={"workers": then.data.workers})
    train = recipe.train
    if train.batch_size == "auto":
        settled = {"batch_size": then.train.batch_size, "effective_batch": then.train.effective_batch}
        train = train.model_copy(update=settled)
    if len(train.stages) == len(then.train.stages):
        stages = tuple(map(_settle_as_then, train.stages, then.train.stages))
        train = train.model_copy(update={"stages": stages})
    # Neither the search's own section nor tracking changes what a training learns.
    kept = {"search": then.search, "tracking": then.tracking, "data": data, "train": train}
    return recipe.model_copy(update=kept) == then
