"""Predictions for any images by the model of a finished run, or by the mean of several runs: a stream, or a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from imagetune.core.files import compute_file_sha256
from imagetune.core.growing_file import GrowingFile, grow_file
from imagetune.core.messages import Say, say_nothing
from imagetune.core.text import format_count
from imagetune.data.sources.image_list import ImageList, list_images
from imagetune.data.sources.read import build_unreadable_error, require_no_overwrite
from imagetune.errors import ModelFileError, RecipeError
from imagetune.evaluation.ensemble import predict_with_models
from imagetune.evaluation.predict import NO_DECISION_RULES, DecisionRules, ImagePrediction, require_rules
from imagetune.evaluation.prediction_table import TableFormat, TableWriter, choose_columns
from imagetune.model.manifest import MANIFEST, LoadedModel, load_model
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.source_kinds import TABLE_SUFFIXES
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.lineage import Member, open_members

# About a batch: what is written at a time, and lost when the process is killed.
_ROWS = 32


@dataclass(frozen=True)
class TableRequest:
    """A table of predictions that is wanted.

    Attributes:
        file: Where to write it.
        format: Its format.
        probabilities: Whether it has a column for each class.
        out_of_distribution: Whether it has the flag and the score of out-of-distribution images.
        resume: Whether an earlier call, which was ended before it was complete, is gone on with.
    """

    file: Path
    format: TableFormat
    probabilities: bool = True
    out_of_distribution: bool = False
    resume: bool = False


def predict(
    run: str,
    paths: Sequence[str],
    rules: DecisionRules = NO_DECISION_RULES,
    *,
    others: Sequence[str] = (),
    say: Say = say_nothing,
) -> Iterator[ImagePrediction]:
    """Yield a prediction for each image in files, folders, patterns and tables of paths, in their order.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        paths: Files, folders, patterns, and tables, whose column of paths is that of the run's recipe.
        rules: Which decision rules of the model's manifest are applied to its predictions.
        others: More runs; the probabilities of all runs are averaged.
        say: Receives what was passed over in folders, and why.

    Raises:
        RecipeError: The decision rules exclude each other, or there are several runs, whose manifests may differ.
        ModelFileError: It is no finished run, its model lacks what a rule needs, or the runs' classes differ.
        DataError: There is no image, or none of them can be read; the latter comes after the last prediction.
    """
    _check_rules(rules, others)
    members = open_members((run, *others))
    # Before the models: a path without images is found in a moment, loading takes seconds.
    images = list_run_images(members[0].folder, paths, say=say)
    # This function is no generator itself, so that wrong options raise at the call and not at the first prediction.
    return _require_readable(predict_listed(_load_models(members, rules), images, rules))


def predict_listed(
    models: Sequence[LoadedModel], images: ImageList, rules: DecisionRules = NO_DECISION_RULES
) -> Iterator[ImagePrediction]:
    """Yield the prediction of one model, or of the mean of several, for each image of a list, which is then closed."""
    with images:
        yield from predict_with_models(models, images, rules)


def predict_to_table(
    run: str,
    paths: Sequence[str],
    table: TableRequest,
    rules: DecisionRules = NO_DECISION_RULES,
    *,
    others: Sequence[str] = (),
    say: Say = say_nothing,
    progress: Callable[[int, int], None] = lambda _done, _count: None,
) -> None:
    """Write a prediction for each image into a table: a row an image; otherwise as `predict`.

    The table is complete or absent. What a call has written that was stopped or killed is kept beside it.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        paths: As for `predict`.
        table: What to write.
        rules: Which decision rules of the model's manifest are applied to its predictions.
        others: More runs; the probabilities of all runs are averaged.
        say: Receives what was passed over in folders, how many rows were written, and how to go on after a stop.
        progress: Called after each batch with the number of rows that are written and of all.

    Raises:
        ImagetuneError: As from `predict`; also a DataError where the file is one of the images.
        CheckpointError: An unfinished table is there and is not to be gone on with, or was made with another model,
            other images or columns.
    """
    _check_rules(rules, others)
    members = open_members((run, *others))
    with list_run_images(members[0].folder, paths, say=say) as images:
        # The table's file may lie among the images that a pattern names.
        require_no_overwrite([table.file], images)
        models = _load_models(members, rules, scored=table.out_of_distribution)
        columns = choose_columns(
            models[0],
            table.format,
            probabilities=table.probabilities,
            sets=rules.sets,
            out_of_distribution=table.out_of_distribution,
        )
        about = {
            "model": [compute_file_sha256(member.folder.model / MANIFEST) for member in members],
            "images": [len(images), images.compute_sha256()],
            "decision rules": asdict(rules),
            "columns": [table.format, asdict(columns)],
        }
        writer = TableWriter(table.format, columns)
        with grow_file(table.file, about, resume=table.resume) as file:
            rows = predict_with_models(models, images, rules, start=file.rows)
            with _saying_how_to_go_on(file, len(images), say):
                unread = _write_rows(file, writer, rows, lambda done: progress(done, len(images)))
        count = format_count(len(images), "image")
    say("written", f"{table.file}: {count}" + (f", {unread:,} of them can't be read" if unread else ""))
    # Each row has its error; that not one image could be read is an exit code as well.
    if unread == len(images):
        raise build_unreadable_error()


def _write_rows(
    file: GrowingFile, writer: TableWriter, predictions: Iterator[ImagePrediction], progress: Callable[[int], None]
) -> int:
    """Add predictions to a file, finish it, and return how many images of the whole file can't be read."""
    if not file.rows:
        file.note["unread"] = 0
        file.add(writer.start(), 0)
    progress(file.rows)
    while rows := list(islice(predictions, _ROWS)):
        file.note["unread"] += sum(row.error is not None for row in rows)
        file.add(writer.encode(rows), len(rows))
        progress(file.rows)
    file.finish(writer.convert)
    unread: int = file.note["unread"]
    return unread


def _check_rules(rules: DecisionRules, others: Sequence[str]) -> None:
    """Refuse decision rules that exclude each other, or that several runs can't apply, before a model is loaded."""
    if rules.operating_point and rules.min_cost:
        what = "--operating-point and --min-cost exclude each other"
        raise RecipeError(what, where="--min-cost", hint="give one of them")
    if others and rules != NO_DECISION_RULES:
        # Temperatures and thresholds were fitted to one run's probabilities, not to the mean of several.
        what = "--calibrated, --sets, --operating-point and --min-cost need a single run"
        raise RecipeError(what, where="--with", hint="leave it out")


def list_run_images(folder: RunFolder, paths: Sequence[str], *, say: Say) -> ImageList:
    """Return the list of the images that files, folders, patterns and tables name; it is to be closed.

    Args:
        folder: The run, whose recipe names the column of tables.
        paths: As for `predict`.
        say: Receives what was passed over in folders, and why.

    Raises:
        DataError: There is no image, or a table can't be read.
    """
    has_table = any(path.lower().endswith(TABLE_SUFFIXES) for path in paths)
    # Of a model from elsewhere there may be no recipe; then a table's column is called path.
    columns = load_recipe(folder.recipe).recipe.data.columns if has_table and folder.recipe.is_file() else None
    return list_images(paths, columns, say=say)


def _load_models(members: Sequence[Member], rules: DecisionRules, *, scored: bool = False) -> list[LoadedModel]:
    """Return the models of runs, which have what is asked of them."""
    models = [load_model(member.folder.model) for member in members]
    require_rules(models[0], rules)
    if scored and all(model.detector is None for model in models):
        hint = "leave it out, or fit with evaluate.out_of_distribution"
        raise ModelFileError("the model has no out-of-distribution score", where="--ood", hint=hint)
    return models


@contextmanager
def _saying_how_to_go_on(file: GrowingFile, count: int, say: Say) -> Iterator[None]:
    """Say what is kept of a table where the block fails or is stopped."""
    try:
        yield
    except BaseException:
        file.close()
        if file.kept and file.lasting:
            say("kept", f"{file.kept:,} of {count:,} rows; the same command with --resume goes on")
        raise


def _require_readable(predictions: Iterable[ImagePrediction]) -> Iterator[ImagePrediction]:
    readable = False
    for prediction in predictions:
        readable |= prediction.error is None
        yield prediction
    # After the last one: the reasons of all images have been printed by then.
    if not readable:
        raise build_unreadable_error()
