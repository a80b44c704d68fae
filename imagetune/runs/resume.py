"""Going on with a run that was stopped: what its folder holds, and whether recipe, images and weights are the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagetune.core import run_files
from imagetune.core.documents import read_document
from imagetune.core.messages import Say
from imagetune.core.run_documents import LOCK
from imagetune.data.audit.bit_depth import settle_bit_depth
from imagetune.errors import CheckpointError
from imagetune.model.load_weights import WeightsReport
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.run_folder.folder import RunFolder, locate_run_folder, refuse_links_out
from imagetune.run_folder.lock import list_versions
from imagetune.runs.prepare import Data
from imagetune.runs.same_inputs import (
    SAME_TRAINING,
    check_same_images,
    check_same_recipe,
    is_below,
    list_present_images,
    read_recorded_images,
)
from imagetune.training.loop.checkpoints import ResumePoint, find_resume_point
from imagetune.training.loop.state import TrainingState

_ELSEWHERE = "undo the change, or begin anew in another folder with --run-dir"


@dataclass(frozen=True)
class BegunRun:
    """A run that an earlier process has begun.

    Attributes:
        folder: Its run folder.
        recipe: Its resolved recipe; None where it was stopped before its inputs were recorded, so that nothing of it is
            worth keeping.
        finished: Whether it is complete.
        point: Where its training can be resumed; None where that begins anew.
    """

    folder: RunFolder
    recipe: Recipe | None
    finished: bool = False
    point: ResumePoint | None = None

    @property
    def state(self) -> TrainingState:
        """State of training to go on from."""
        return TrainingState() if self.point is None else self.point.state


def find_begun_run(run_dir: Path | None, *, resume: bool) -> BegunRun | None:
    """Return the run that a folder holds, if it is finished or shall be resumed; None where a run is to begin.

    Args:
        run_dir: The folder; None for a new one.
        resume: Whether an unfinished run is gone on with.

    Raises:
        CheckpointError: The run can't be gone on with: all its checkpoints are corrupted, or it is a search.
        ModelFileError: A link in it leads elsewhere.
        RecipeError: Its recipe can't be read.
    """
    if run_dir is None or not RunFolder(run_dir).status.is_file():
        return None
    folder = locate_run_folder(run_dir)
    finished = folder.read_status().get("state") == "finished"
    if not (finished or resume):
        return None
    refuse_links_out(folder.path)
    if (folder.path / run_files.SEARCH).is_file():
        hint = "go on with it by imagetune search, or choose another --run-dir"
        raise CheckpointError("the folder holds a search", where=str(folder.path), hint=hint)
    point = None if finished else find_resume_point(folder.checkpoints)
    # Without its inputs there is nothing to compare with, unless it has been trained: then their loss is an error.
    recorded = finished or point is not None or (folder.splits.is_file() and folder.lock.is_file())
    recipe = load_recipe(folder.recipe).recipe if recorded and folder.recipe.is_file() else None
    return BegunRun(folder, recipe, finished, point)


def settle_as_before(recipe: Recipe, begun: BegunRun, data: Data) -> Recipe:
    """Return the recipe with everything that was ``auto`` as the begun run has settled it.

    Args:
        recipe: The recipe as it is now.
        begun: The run that is gone on with.
        data: The images as they are now.

    Raises:
        CheckpointError: The recipe or the images have changed, or their record can't be read.
    """
    if begun.recipe is None:
        return recipe
    settled = recipe.model_copy(
        update={
            "train": _settle_train(recipe.train, begun.recipe.train),
            "data": settle_bit_depth(recipe.data, data.audit.statistics),
        }
    )
    folder = begun.folder
    check_same_recipe(begun.recipe, settled, where=folder.recipe, may_change=_may_change, hint=_ELSEWHERE)
    hint = "put the images back, or begin anew in another folder with --run-dir"
    check_same_images(read_recorded_images(folder), list_present_images(data), where=folder.splits, hint=hint)
    return settled


def check_same_weights(begun: BegunRun, weights: WeightsReport, *, say: Say) -> None:
    """Check that the pretrained weights are those that the begun run has started with.

    Args:
        begun: The run that is gone on with.
        weights: The weights as they are now.
        say: Receives which libraries have another version, as the result may then differ in its last digits.

    Raises:
        CheckpointError: They are others.
        ModelFileError: The record of them can't be read.
    """
    if begun.recipe is None:
        return
    lock = read_document(begun.folder.lock, LOCK)
    if lock.get("weights", {}).get("sha256") != weights.sha256:
        what = f"the pretrained weights are others now: {weights.source}"
        hint = "put the former file back, or begin anew in another folder with --run-dir"
        raise CheckpointError(what, where=str(begun.folder.lock), hint=hint)
    then, now = lock.get("versions", {}), list_versions()
    if changed := [f"{name} {then[name]}, now {now.get(name)}" for name in then if then[name] != now.get(name)]:
        say("warning", f"this run began with {'; '.join(changed)}: its result may differ from an uninterrupted run's")


def _may_change(key: str) -> bool:
    return is_below(key, SAME_TRAINING)


def _settle_train(now: TrainConfig, then: TrainConfig) -> TrainConfig:
    update: dict[str, object] = {}
    if now.batch_size == "auto":
        update |= {"batch_size": then.batch_size, "effective_batch": then.effective_batch}
    if len(now.stages) == len(then.stages):
        pairs = zip(now.stages, then.stages, strict=True)
        update["stages"] = tuple(_settle_stage(stage, before) for stage, before in pairs)
    return now.model_copy(update=update)


def _settle_stage(now: StageConfig, then: StageConfig) -> StageConfig:
    if now.solve != "auto":
        return now
    # A solved stage has one epoch, whatever the recipe says.
    epochs = then.epochs if then.solve is True else now.epochs
    return now.model_copy(update={"solve": then.solve, "epochs": epochs})
