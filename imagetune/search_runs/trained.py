"""One training of a trial in a run folder of its own, and the figures that it reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from imagetune.core.files import read_json_lines, write_json
from imagetune.jobs import build_pretrained, settle_batch_size, settle_workers, training_job
from imagetune.model.weights import WeightsReport
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.run_folder import (
    RunFolder,
    RunRecorder,
    create_run_folder,
    failure_state,
    lock_document,
    write_recipe,
)
from imagetune.search_runs.median_stopping import MedianStopping
from imagetune.training.events import SilentListener
from imagetune.training.faults import memory_errors
from imagetune.training.fit import train
from imagetune.training.job import Pictures
from imagetune.training.stopping import StopRequest


@dataclass(frozen=True)
class Lesson:
    """What is to be trained.

    Attributes:
        recipe: Complete and validated.
        pictures: What training may see, as a function of the recipe.
        folder: The run folder to make.
        objective: The validation figure.
        until_epoch: Where training ends, in epochs of all stages.
        continues: Run folder of the training that this one goes on with.
        compared: Run folders of earlier trials for median stopping.
    """

    recipe: Recipe
    pictures: Callable[[Recipe], Pictures]
    folder: Path
    objective: str
    until_epoch: int | None = None
    continues: Path | None = None
    compared: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Trained:
    """How a training ended.

    Attributes:
        objective: The figure of the epoch whose weights are kept, maybe one of a lower rung: what a fit would reach.
        best_epoch: That epoch, from 1 over all stages.
        epochs: Epochs that were trained here.
        stopped: Whether median stopping has ended it.
    """

    objective: float
    best_epoch: int
    epochs: int
    stopped: bool


def train_lesson(lesson: Lesson, *, stop: StopRequest) -> Trained:
    """Train, and leave a run folder whose recipe.yaml `imagetune fit` can repeat.

    Raises:
        ImagetuneError: As `imagetune.training.fit.train`; CheckpointError where the training to go on with is damaged.
    """
    folder = create_run_folder(lesson.recipe, lesson.folder)
    recorder = RunRecorder(folder, SilentListener(), lambda _: None)
    try:
        trained = _train(lesson, folder, recorder, stop)
    except BaseException as error:
        recorder.end(failure_state(error), error)
        raise
    recorder.end("finished")
    return trained


def _train(lesson: Lesson, folder: RunFolder, recorder: RunRecorder, stop: StopRequest) -> Trained:
    if lesson.continues is not None:
        recorder.go_on_from(RunFolder(lesson.continues))
    before = len(read_json_lines(folder.metrics))
    recipe = _with_batch_size(lesson)
    with memory_errors(recipe.train.pass_size):
        model, weights = build_pretrained(recipe, lesson.pictures(recipe), say=_quiet)
        recipe = settle_workers(recipe, lesson.pictures(recipe), model, say=_quiet, one_of_many=True)
        _write_inputs(folder, recipe, lesson.recipe, weights)
        job = training_job(recipe, lesson.pictures(recipe), model, stop=stop)

        def beat() -> None:
            recorder.beat()
            stop.check()

        median = MedianStopping(lesson.compared, lesson.objective, recipe.train.stages, beat)
        kept = train(
            replace(job, folder=folder.checkpoints, listener=recorder),
            start_from=None if lesson.continues is None else RunFolder(lesson.continues).checkpoints,
            until_epoch=lesson.until_epoch,
            enough=median,
        )
    epochs = len(read_json_lines(folder.metrics)) - before
    return Trained(kept.val[lesson.objective], kept.epoch, epochs, median.stopped)


def _with_batch_size(lesson: Lesson) -> Recipe:
    """Return the recipe with its batch size, which is that of a lower rung: it decides what an epoch learns."""
    recipe = lesson.recipe
    if lesson.continues is None or recipe.train.batch_size != "auto":
        return settle_batch_size(recipe, lesson.pictures(recipe), say=_quiet)
    size = load_recipe(RunFolder(lesson.continues).recipe).recipe.train.batch_size
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_size": size})})


def _write_inputs(folder: RunFolder, recipe: Recipe, before: Recipe, weights: WeightsReport) -> None:
    """Write what the training stands on; the hashes of its pictures are the search's."""
    if recipe != before:
        write_recipe(recipe, folder.recipe)
    write_json(folder.path / "lock.json", lock_document(recipe, weights=asdict(weights), pictures={}))


def _quiet(_line: str) -> None:
    """Say nothing."""
