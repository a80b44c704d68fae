"""The application on one page: what a run is made of, in order.

recipe -> data -> model -> training -> evaluation -> report, with a copy of everything for the tracker.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import keras

from imagetune.core.files import atomic_path, write_json
from imagetune.data.audit import Audit, audit_catalog, enforce_audit
from imagetune.data.catalog import find_pictures, read_catalog
from imagetune.data.checking import audit_document
from imagetune.data.holdout import open_holdout
from imagetune.data.picture_cache import PictureCaches
from imagetune.data.sources.catalog import Catalog
from imagetune.data.splits import Splits, split_catalog, write_splits_csv
from imagetune.errors import GateError, ImagetuneError, TrackingError
from imagetune.evaluation.document import evaluate_split, evaluation_document, failed_requirements
from imagetune.evaluation.figures import write_figures
from imagetune.evaluation.model_card import write_model_card
from imagetune.evaluation.multilabel import choose_thresholds
from imagetune.evaluation.pictures import PLAIN_WAYS, AnswerWays, PicturePrediction, predict_pictures
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.report import write_report
from imagetune.finished import open_run, run_splits
from imagetune.jobs import build_pretrained, refuse_inherited_leaks, settle_batch_size, settle_workers, training_job
from imagetune.model.backbones import get_backbone
from imagetune.model.manifest import save_model
from imagetune.model.trainable import set_trainable
from imagetune.model.weights import WeightsReport
from imagetune.recipe.bars import with_bars
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.recipe.tracking import Requirement
from imagetune.run_folder import (
    RunFolder,
    RunRecorder,
    check_run_place,
    create_run_folder,
    failure_noted,
    failure_state,
    lock_document,
    open_run_folder,
)
from imagetune.task_checks import check_classes
from imagetune.testing import evaluate_splits, groups_of, labelled_records, predict_labelled
from imagetune.tracking.sync import is_tracked, sync_run
from imagetune.tracking.tensorboard import write_tensorboard
from imagetune.tracking.tracker import Tracker, start_tracking
from imagetune.training.events import EpochRecord, Listener
from imagetune.training.fit import train
from imagetune.training.job import Pictures
from imagetune.training.plan import StagePlan, plan_stages
from imagetune.training.stopping import StopRequest, listen_for_stop
from imagetune.validation import load_checked_recipe

Say = Callable[[str], None]


@dataclass(frozen=True)
class Data:
    """The pictures of a run: what there is, what is wrong with them, and who is in which split."""

    catalog: Catalog
    audit: Audit
    splits: Splits
    caches: PictureCaches

    def pictures(self, recipe: Recipe) -> Pictures:
        """Return what training may see."""
        splits = self.splits
        return Pictures(splits.train, splits.val, splits.class_names, recipe.data, self.audit.hashes, self.caches)


class Tested(Protocol):
    """A run with the bars that its test missed."""

    @property
    def folder(self) -> Path:
        """The run folder."""

    @property
    def missed(self) -> tuple[str, ...]:
        """Bars of ``evaluate.require`` that the test missed, and by how much."""


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        folder: The run folder.
        best: The epoch whose weights the model has.
        evaluation: Content of evaluation.json; None where the test was left for later.
        missed: Bars of ``evaluate.require`` that the test missed, and by how much.
    """

    folder: Path
    best: EpochRecord
    evaluation: dict[str, Any] | None
    missed: tuple[str, ...]


# What follows the test of a run, from its recipe, folder and tracker: more of evaluation.json.
After = Callable[[Recipe, RunFolder, Tracker], dict[str, Any]]


def fit(
    recipe_path: Path,
    overrides: Sequence[str],
    *,
    run_dir: Path | None,
    listener: Listener,
    say: Say,
    prepare: Callable[[Recipe, Data, StopRequest], After | None] | None = None,
) -> RunResult:
    """Fine-tune as the recipe says, test once, and leave a run folder and its copy in the tracker.

    Args:
        recipe_path: The YAML file.
        overrides: ``KEY=VALUE`` texts.
        run_dir: The run folder; one is named and made under runs/ by default.
        listener: Hears of progress.
        say: Prints a line for the user.
        prepare: Called before training; what it returns follows the test.

    Raises:
        ImagetuneError: See the error tree; nothing is left behind when it comes before training.
    """
    with listen_for_stop() as stop:
        loaded = load_checked_recipe(recipe_path, overrides)
        recipe = loaded.recipe
        check_run_place(run_dir)
        with loaded.placing_errors():
            data = read_data(recipe, say=say)
            after = prepare(recipe, data, stop) if prepare else None
            return run_recipe(recipe, data, run_dir=run_dir, listener=listener, say=say, stop=stop, after=after)


def enforce_requirements(result: Tested) -> None:
    """Raise GateError if the test missed a bar of ``evaluate.require``; the run is complete all the same."""
    if result.missed:
        hint = "the run is complete and can be reviewed"
        raise GateError("; ".join(result.missed), where=str(result.folder), hint=hint)


def plan(recipe_path: Path, overrides: Sequence[str], *, say: Say) -> tuple[Recipe, list[StagePlan]]:
    """Do everything of ``fit`` up to one batch of each stage, and leave nothing behind."""
    with listen_for_stop() as stop:
        loaded = load_checked_recipe(recipe_path, overrides)
        with loaded.placing_errors():
            recipe = loaded.recipe
            data = read_data(recipe, say=say)
            recipe = settle_batch_size(recipe, data.pictures(recipe), say=say)
            model, _ = build_pretrained(recipe, data.pictures(recipe), say=say)
            return recipe, plan_stages(training_job(recipe, data.pictures(recipe), model, stop=stop))


def read_data(recipe: Recipe, *, say: Say) -> Data:
    """Read the catalog, audit the pictures and split them."""
    catalog = read_catalog(recipe.data)
    audit = audit_catalog(catalog, recipe.data)
    enforce_audit(audit)
    splits = split_catalog(catalog, audit, recipe.data, seed=recipe.split_seed)
    check_classes(recipe, splits.class_names)
    test = splits.test_count
    counts = f"{len(splits.train)} train, {len(splits.val)} val, {test} test"
    say(f"data        {counts} in {splits.told_labels()}")
    for note in splits.notes:
        say(f"note        {note}")
    for finding in audit.findings:
        hint = f"; {finding.hint}" if finding.hint else ""
        say(f"{finding.severity:<11} {finding.title}{hint} [{finding.code}]")
    return Data(catalog, audit, splits, PictureCaches(audit.hashes))


def run_recipe(  # noqa: PLR0913 - a run's circumstances, each by its name
    recipe: Recipe,
    data: Data,
    *,
    run_dir: Path | None,
    listener: Listener,
    say: Say,
    stop: StopRequest,
    parent_run_id: str | None = None,
    test: bool = True,
    after: After | None = None,
) -> RunResult:
    """Make one run in a folder of its own.

    Args:
        recipe: The resolved recipe.
        data: Its pictures.
        run_dir: The run folder; one is named and made under runs/ by default.
        listener: Hears of progress.
        say: Prints a line for the user.
        stop: Asked after every step.
        parent_run_id: MLflow run of what this is a part of: a search's trial, a fold.
        test: False leaves the test split closed, as a search's trials do.
        after: What follows the test.
    """
    pictures = data.pictures(recipe)
    recipe = settle_batch_size(recipe, pictures, say=say)
    refuse_inherited_leaks(recipe, data.splits, data.audit.hashes, say=say)
    model, weights = build_pretrained(recipe, pictures, say=say)
    recipe = settle_workers(recipe, pictures, model, say=say)
    job = training_job(recipe, data.pictures(recipe), model, stop=stop)
    folder = create_run_folder(recipe, run_dir)
    say(f"run folder  {folder.path}")
    with failure_noted(folder):
        _write_inputs(folder, recipe, data, weights)
        tracker = start_tracking(folder.path, recipe.tracking, recipe_name=recipe.name, parent_run_id=parent_run_id)
    recorder = RunRecorder(folder, listener, lambda record: _pass_on(record, folder, tracker, recipe))
    try:
        best = train(replace(job, folder=folder.checkpoints, listener=recorder))
        say(f"best        epoch {best.epoch}, of stage {best.stage!r}")
        val = write_model(folder, model, recipe, data.splits, pictures=job.pictures)
        evaluation = None
        if test:
            evaluation = evaluate_splits(folder, model, recipe, data.splits, say=say, val=val, pictures=job.pictures)
        if evaluation is not None and after is not None:
            evaluation |= after(recipe, folder, tracker)
            write_json(folder.evaluation, evaluation)
        recorder.end("finished")
        write_pages(folder)
    except BaseException as error:
        recorder.end(failure_state(error), error)
        # The page of a failed run helps to see why; a full disk must not hide what went wrong first.
        with contextlib.suppress(OSError, ImagetuneError):
            write_pages(folder)
        finish_tracking(tracker, say)
        raise
    finish_tracking(tracker, say)
    missed = failed_requirements(evaluation, recipe.evaluate.require) if evaluation else ()
    return RunResult(folder.path, best, evaluation, missed)


def evaluate(run: str, *, data: Path | None, require: Sequence[Requirement] = ()) -> dict[str, Any]:
    """Return the evaluation document of a run on its own test split, or on other labelled pictures.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        data: Other labelled pictures.
        require: Bars besides those of the recipe.

    Returns:
        The document; with ``unusable``, path and reason, where some of the other pictures had to be left out.
    """
    folder, loaded = open_run(run)
    recipe = load_recipe(folder.recipe).recipe
    unusable: dict[str, str] = {}
    if data:
        records, unusable = labelled_records(data, recipe)
    else:
        records = open_holdout(run_splits(folder, recipe, loaded.class_names))
    predictions = predict_labelled(loaded.model, records, loaded.class_names, recipe, thresholds=loaded.thresholds)
    evaluation = evaluate_split(predictions, config=recipe.evaluate, seed=recipe.seed, groups=groups_of(records))
    document = evaluation_document({"test": evaluation}, config=with_bars(recipe.evaluate, require))
    return document | ({"unusable": unusable} if unusable else {})


def enforce_bars(document: Mapping[str, Any], *, where: str) -> None:
    """Raise GateError if a test missed a bar, saying by how much.

    Args:
        document: From `evaluate`.
        where: The run.
    """
    missed = [bar["message"] for bar in document.get("requirements", []) if not bar["met"]]
    if missed:
        raise GateError("; ".join(missed), where=where)


def predict(run: str, paths: Sequence[str], ways: AnswerWays = PLAIN_WAYS) -> Iterator[PicturePrediction]:
    """Yield a prediction for each picture in files, folders and globs.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        paths: Of pictures.
        ways: What of the model's manifest is applied to its answers.
    """
    _, loaded = open_run(run)
    yield from predict_pictures(loaded, find_pictures(paths), ways)


def report(run: str, *, say: Say) -> Path:
    """Write report.html of a run again, from the files in its folder, and send what changed to MLflow."""
    folder = open_run_folder(Path(run), trained=False)
    page = write_pages(folder)
    send_changes(folder, say=say)
    return page


def send_changes(folder: RunFolder, *, say: Say) -> None:
    """Send to MLflow what changed in the folder of an ended run that is there already; say so where that fails.

    A run that goes on sends it itself, and one that was never tracked stays in its folder.
    """
    if not is_tracked(folder.path) or folder.read_status().get("state") == "running":
        return
    try:
        sync_run(folder.path)
    except TrackingError as error:
        say(f"warning     MLflow has not got the new pages ({error}); later: imagetune sync {folder.path}")


def sync(run_dir: Path) -> str:
    """Send to MLflow what a run folder still holds back, and say what was sent."""
    return sync_run(run_dir).message()


def _write_inputs(folder: RunFolder, recipe: Recipe, data: Data, weights: WeightsReport) -> None:
    write_json(folder.path / "lock.json", lock_document(recipe, weights=asdict(weights), pictures=data.audit.hashes))
    write_splits_csv(data.splits, folder.splits)
    write_json(folder.path / "audit.json", audit_document(data.catalog, data.audit, data.splits))


def write_model(
    folder: RunFolder, model: keras.Model, recipe: Recipe, splits: Splits, *, pictures: Pictures | None = None
) -> Predictions | None:
    """Write a run's model twice: ``model/`` for imagetune, and ``model.keras``, which is left all trainable.

    The thresholds of multi_label are chosen here, on validation.

    Returns:
        What the model says of the validation pictures, where that had to be known here.
    """
    val: Predictions | None = None
    thresholds: tuple[float, ...] = ()
    if recipe.data.task == "multi_label" and splits.val:
        val = predict_labelled(model, splits.val, splits.class_names, recipe, pictures=pictures)
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
        views=recipe.evaluate.views,
    )
    # What stages froze is theirs: the file that leaves has every layer trainable and its own dropout.
    set_trainable(model, get_backbone(recipe.model.backbone), "all", batch_norm="train")
    with atomic_path(folder.keras_file) as temporary:
        model.save(temporary)
    return val


def _pass_on(record: EpochRecord, folder: RunFolder, tracker: Tracker, recipe: Recipe) -> None:
    if recipe.tracking.tensorboard:
        write_tensorboard(folder.path, record.as_json())
    tracker.poke()


def write_pages(folder: RunFolder) -> Path:
    """Draw the figures of a run and write its report and model card, from the files in its folder."""
    write_figures(folder.path)
    write_model_card(folder.path)
    return write_report(folder.path)


def finish_tracking(tracker: Tracker, say: Say) -> None:
    """Send what is left, and say what could not be sent."""
    message = tracker.finish()
    if message:
        say(f"warning     {message}")
