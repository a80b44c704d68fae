"""The lifecycle of a run: its folder made, trained, written, tested once, recorded, and copied to MLflow."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import psutil

from imagetune.core.files import read_json_or_empty, replace_atomically, require_free_disk, write_json
from imagetune.core.messages import Say
from imagetune.core.stopping import check_stop, hold_stops, prefer_stop
from imagetune.data.check_document import build_audit_document
from imagetune.data.splits.splits import Splits, write_splits_csv
from imagetune.errors import StoppedError
from imagetune.evaluation.document import list_failed_requirements
from imagetune.evaluation.metrics.multilabel import choose_thresholds
from imagetune.evaluation.predictions import Predictions
from imagetune.model.backbones.table import get_backbone
from imagetune.model.manifest import save_model
from imagetune.model.trainable import set_trainable
from imagetune.recipe.schema import Recipe
from imagetune.recipe.used_plugins import find_used_plugins
from imagetune.run_folder.claim import hold_run_folder
from imagetune.run_folder.folder import RunFolder, create_run_folder, reopen_run_folder
from imagetune.run_folder.lock import build_lock_document
from imagetune.run_folder.plain_model import write_plain_predict
from imagetune.run_folder.reader import read_evaluation
from imagetune.run_folder.receipt import renew_receipt, write_receipt
from imagetune.run_folder.recorder import RunRecorder, get_failure_state
from imagetune.runs.pages import complete_run, write_pages
from imagetune.runs.prepare import Data, Training, prepare_training, refuse_inherited_leaks
from imagetune.runs.resume import BegunRun, check_same_weights, find_begun_run, settle_as_before
from imagetune.runs.test import ModelOrigin, evaluate_splits, predict_labelled
from imagetune.tracking.tensorboard import write_tensorboard
from imagetune.tracking.tracker import Tracker, start_tracking
from imagetune.training.loop.fit import train
from imagetune.training.loop.refit import find_refit_stage, refit_head
from imagetune.training.setup.events import EpochRecord, Listener, SilentListener
from imagetune.training.setup.job import TrainingImages
from imagetune.training.setup.stopping import StopRequest


class Run:
    """A run in progress.

    Attributes:
        folder: The run folder.
        recipe: The resolved recipe.
        recorder: The listener that writes the training's progress into the folder.
        tracker: The copy of the run in MLflow; None before `track`.
    """

    def __init__(self, folder: RunFolder, recipe: Recipe, listener: Listener) -> None:
        self.folder = folder
        self.recipe = recipe
        self.recorder = RunRecorder(folder, listener)
        self.tracker: Tracker | None = None

    def track(self, *, parent_run_id: str | None = None) -> Tracker:
        """Start copying the folder to the tracking server, epoch by epoch.

        Args:
            parent_run_id: The MLflow run that this one is nested in: a search, or a run with folds.

        Raises:
            TrackingError: Tracking is required and the server can't be reached.
        """
        config = self.recipe.tracking
        tracker = start_tracking(self.folder.path, config, recipe_name=self.recipe.name, parent_run_id=parent_run_id)

        def copy(record: EpochRecord) -> None:
            if config.tensorboard:
                write_tensorboard(self.folder.path, record.as_json())
            tracker.poke()

        self.recorder.pass_on = copy
        self.tracker = tracker
        return tracker


@contextmanager
def start_run(
    recipe: Recipe,
    run_dir: Path | None,
    *,
    say: Say,
    listener: Listener | None = None,
    pages: bool = True,
    begun: BegunRun | None = None,
) -> Iterator[Run]:
    """Make a run's folder and keep its status up to date: running in the block, then finished, failed or killed.

    An exception that ends the block is recorded in status.json, with its traceback in debug.log. What MLflow lacks by
    then is sent before the block is left. A signal that comes before the state is ``finished`` ends the run; a later
    one leaves it finished and ends the command.

    Args:
        recipe: The resolved recipe.
        run_dir: The run folder; one is named and made under runs/ by default.
        say: Receives the folder's path, and what could not be sent.
        listener: Receives the training's progress.
        pages: Whether the report, the model card and the plots are written at the end, also for a run that failed.
        begun: The run that is gone on with, in the place of a new one.

    Yields:
        The run; nothing is copied to MLflow before `Run.track`.

    Raises:
        CheckpointError: The folder holds a run already, or another process is writing it.
        ResourceError: The disk is full.
        StoppedError: A signal was received.
    """
    check_stop()
    folder = create_run_folder(recipe, run_dir) if begun is None else begun.folder
    with hold_run_folder(folder):
        if begun is not None:
            reopen_run_folder(folder, recipe)
        say("run folder", str(folder.path))
        with _record_run(Run(folder, recipe, listener or SilentListener()), say=say, pages=pages) as run:
            if begun is not None:
                run.recorder.go_on_from(folder, begun.state)
            yield run


@contextmanager
def _record_run(run: Run, *, say: Say, pages: bool) -> Iterator[Run]:
    """Keep the status of a run up to date, as `start_run` says."""
    folder = run.folder
    try:
        yield run
        check_stop()
        # Before the pages, which show the state.
        run.recorder.end("finished")
        if pages:
            with hold_stops():
                write_pages(folder)
                if run.tracker is not None:
                    run.tracker.stop_sampling()
                # Before the last copy to MLflow, which takes it along.
                write_receipt(folder.path)
    # Also for Ctrl-C, which is no Exception: status.json must not say that the run goes on.
    except BaseException as raised:
        error = prefer_stop(raised)
        run.recorder.end(get_failure_state(error), error)
        if pages:
            # The report of a failed run helps to see why; nothing may hide what went wrong first.
            with contextlib.suppress(Exception), hold_stops():
                write_pages(folder)
        if error is not raised:
            raise error from raised
        raise
    finally:
        if run.tracker is not None:
            # A plug-in may write a last file.
            with renew_receipt(folder.path):
                finish_tracking(run.tracker, say)
    _note_late_stop(folder)


def _note_late_stop(folder: RunFolder) -> None:
    """Say of a stop that was asked for after a run's end that this run is complete.

    Raises:
        StoppedError: A signal was received.
    """
    try:
        check_stop()
    except StoppedError as stop:
        # Nothing is left for which it could be requeued.
        if stop.requeue:
            return
        stop.where, stop.hint = str(folder.path), "this run is finished and complete"
        raise


def finish_tracking(tracker: Tracker, say: Say) -> None:
    """Send what MLflow lacks of a run that has ended, and warn of what could not be sent."""
    if message := tracker.finish():
        say("warning", message)


@dataclass(frozen=True)
class RunResult:
    """The result of a finished run.

    Attributes:
        folder: The run folder.
        evaluation: The content of evaluation.json.
        missed: A sentence for each missed requirement of ``evaluate.require``, which says by how much.
    """

    folder: Path
    evaluation: dict[str, Any]
    missed: tuple[str, ...]


def run_recipe(
    recipe: Recipe,
    data: Data,
    *,
    run_dir: Path,
    listener: Listener,
    say: Say,
    stop: StopRequest,
    parent_run_id: str | None = None,
) -> RunResult:
    """Train, test and record a run that belongs to another one, such as a fold or the winner of a search.

    One that was begun by an earlier process is gone on with.

    Args:
        recipe: The resolved recipe.
        data: Its images.
        run_dir: The run folder to make, or to go on with.
        listener: Receives the training's progress.
        say: Receives progress messages.
        stop: Checked after every step.
        parent_run_id: The MLflow run that this one is nested in.
    """
    begun = find_begun_run(run_dir, resume=True)
    if begun is not None:
        recipe = settle_as_before(recipe, begun, data)
        if begun.finished:
            return read_run_result(begun.folder, recipe, say=say)
    # Before the model is built and before there is a folder: such a run should leave nothing behind.
    refuse_inherited_leaks(recipe, data.splits, data.audit.hashes, say=say)
    training = prepare_training(recipe, data, say=say, stop=stop)
    with start_run(training.recipe, run_dir, say=say, listener=listener, begun=begun) as run:
        write_inputs(run.folder, training, data, begun=begun, say=say)
        # After the inputs are written, so that the first copy has them.
        run.track(parent_run_id=parent_run_id)
        best = train_model(run, training, begun=begun, say=say)
        evaluation = write_and_test(run, training, data.splits, best=best, say=say)
    return build_run_result(run.folder, run.recipe, evaluation)


def write_inputs(folder: RunFolder, training: Training, data: Data, *, begun: BegunRun | None = None, say: Say) -> None:
    """Write the inputs of a run, before it trains: lock.json, splits.csv and audit.json.

    Args:
        folder: The run folder.
        training: The run's training.
        data: Its images.
        begun: The run that is gone on with: its weights must be these.
        say: Receives warnings.

    Raises:
        CheckpointError: The weights are others than those of the run that is gone on with.
    """
    if begun is not None:
        check_same_weights(begun, training.weights, say=say)
    weights = asdict(training.weights)
    write_json(
        folder.lock,
        build_lock_document(
            seed=training.recipe.seed,
            weights=weights,
            images=data.audit.hashes,
            plugins=find_used_plugins(training.recipe),
        ),
    )
    write_splits_csv(data.splits, folder.splits)
    write_json(folder.audit, build_audit_document(data.catalog, data.audit, data.splits))


def train_model(run: Run, training: Training, *, begun: BegunRun | None = None, say: Say) -> EpochRecord:
    """Train in the run's folder, leave the best epoch's weights in the job's model, and return that epoch's record."""
    point = None if begun is None else begun.point
    if point is not None:
        for error in point.passed_over:
            say("warning", f"{error.where}: {error.what}; training goes on from an earlier checkpoint")
        at = "" if point.state.stage is None else f" of stage {point.state.stage.name!r}"
        say("resumed", f"after epoch {point.state.epoch}, step {point.state.step}{at}")
    best = train(
        replace(training.job, folder=run.folder.checkpoints, listener=run.recorder),
        start_from=point,
    )
    say("best", f"epoch {best.epoch}, of stage {best.stage!r}")
    return best


def write_and_test(run: Run, training: Training, splits: Splits, *, best: EpochRecord, say: Say) -> dict[str, Any]:
    """Refit the head where that is due, write the model, test it once, and return the content of evaluation.json.

    Args:
        run: The run.
        training: Its training, with the weights of the best epoch.
        splits: The images.
        best: Record of the best epoch.
        say: Receives progress messages.
    """
    job, recipe = training.job, training.recipe
    val, refit = None, find_refit_stage(recipe.train, best, validated=bool(splits.val))
    if refit is not None:
        # Before the head learns from the validation images: what they decide must not be flattered by that.
        val = predict_labelled(job.model, splits.val, splits.class_names, recipe, images=job.images)
        count = refit_head(replace(job, listener=run.recorder), refit, best)
        say("refit", f"the head is solved again on all {count} training and validation images")
    val = write_model(run.folder, job.model, recipe, splits, images=job.images, val=val)
    # Later stages were dropped: the backbone is not fine-tuned by what the model doesn't have.
    kept = recipe.model_copy(update={"train": recipe.train.until(best.stage)})
    return evaluate_splits(
        run.folder,
        job.model,
        kept,
        splits,
        say=say,
        val=val,
        images=job.images,
        origin=ModelOrigin(refit is not None, best.epoch),
    )


def build_run_result(folder: RunFolder, recipe: Recipe, evaluation: dict[str, Any]) -> RunResult:
    """Return the result of a finished run, with the requirements that it missed."""
    return RunResult(folder.path, evaluation, list_failed_requirements(evaluation, recipe.evaluate.require))


def read_run_result(folder: RunFolder, recipe: Recipe, *, say: Say) -> RunResult:
    """Return the result of a run that an earlier process has finished, with the pages that it may have left out.

    Raises:
        ModelFileError: Its evaluation can't be read.
    """
    complete_run(folder, tracked=recipe.tracking.enabled, say=say)
    return build_run_result(folder, recipe, read_evaluation(folder.evaluation))


def write_model(
    folder: RunFolder,
    model: keras.Model,
    recipe: Recipe,
    splits: Splits,
    *,
    images: TrainingImages | None = None,
    val: Predictions | None = None,
) -> Predictions | None:
    """Write a run's model twice: ``model/`` for imagetune, and ``model.keras`` with every layer trainable.

    Beside the latter lie predict.py and labels.json, by which it predicts the same without imagetune.

    The decision thresholds of multi_label are chosen here, on validation, as the manifest holds them.

    Args:
        folder: The run folder.
        model: The model.
        recipe: The run's recipe.
        splits: The images.
        images: The images of training and validation, with the cache of decoded images.
        val: Predictions of the validation images, where they are not to be this model's.

    Returns:
        The predictions of the validation images as far as they are known.
    """
    thresholds: tuple[float, ...] = ()
    # Never on the test images: a threshold that was chosen there would make their metrics too good.
    if recipe.data.task == "multi_label" and splits.val:
        val = val or predict_labelled(model, splits.val, splits.class_names, recipe, images=images)
        thresholds = choose_thresholds(val)
    save_model(
        model,
        folder.model,
        config=recipe.model,
        class_names=splits.class_names,
        task=recipe.data.task,
        thresholds=thresholds,
        label_separator=recipe.data.label_separator,
        image=recipe.data.image,
        max_pixels=recipe.data.max_pixels,
        tta=recipe.evaluate.tta,
        weights_license=read_json_or_empty(folder.lock).get("weights", {}).get("license"),
    )
    # Which layers a stage froze matters to that stage alone: whoever opens the file in Keras can train all of it.
    set_trainable(model, get_backbone(recipe.model.backbone), "all", batch_norm="train")
    # Where memory is short Keras writes HDF5 to the disk first, which crashes the process when that becomes full.
    size = 4 * sum(math.prod(weight.shape) for weight in model.weights)
    require_free_disk(folder.path, size if psutil.virtual_memory().available > 4 * size else 2 * size)
    # A kill or a full disk must not leave half a file under the name of the model.
    with replace_atomically(folder.keras_file) as temporary:
        model.save(temporary)
    write_plain_predict(folder)
    return val
