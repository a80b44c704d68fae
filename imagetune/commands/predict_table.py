"""Predictions for any images as a table of CSV, JSON lines or Parquet: complete or absent, and gone on with."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from imagetune.commands.predict import check_rules, list_run_images, load_models
from imagetune.core.files import compute_file_sha256
from imagetune.core.growing_file import GrowingFile, grow_file, is_complete
from imagetune.core.messages import Say, say_nothing
from imagetune.core.text import format_count
from imagetune.data.sources.read import build_unreadable_error, require_no_overwrite
from imagetune.errors import CheckpointError
from imagetune.evaluation.ensemble import predict_with_models
from imagetune.evaluation.image_predictions import NO_DECISION_RULES, DecisionRules, ImagePrediction
from imagetune.evaluation.prediction_table import TableFormat, TableWriter, choose_columns, count_rows
from imagetune.model.manifest import MANIFEST
from imagetune.runs.lineage import open_members

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
    check_rules(rules, others)
    members = open_members((run, *others))
    with list_run_images(members[0].folder, paths, say=say) as images:
        # The table's file may lie among the images that a pattern names.
        require_no_overwrite([table.file], images)
        if table.resume and _is_done(table, len(images)):
            say("finished", f"{table.file} is complete already, with {format_count(len(images), 'image')}")
            return
        models = load_models(members, rules, scored=table.out_of_distribution)
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
            _check_kept(file, table.file, len(images))
            rows = predict_with_models(models, images, rules, start=file.rows)
            with _saying_how_to_go_on(file, len(images), say):
                unread = _write_rows(file, writer, rows, lambda done: progress(done, len(images)))
        count = format_count(len(images), "image")
    say("written", f"{table.file}: {count}" + (f", {unread:,} of them can't be read" if unread else ""))
    # Each row has its error; that not one image could be read is an exit code as well.
    if unread == len(images):
        raise build_unreadable_error()


def _is_done(table: TableRequest, images: int) -> bool:
    """Return whether an earlier call has completed a table for as many images: nothing of it is left to do.

    One of another number of rows is left to `grow_file`, which refuses to go on with it.
    """
    if not is_complete(table.file):
        return False
    # A file that is no such table was never written by us.
    with suppress(ValueError, csv.Error):
        return count_rows(table.file, table.format) == images
    return False


def _check_kept(file: GrowingFile, path: Path, count: int) -> None:
    """Refuse kept rows that this command hasn't written: more than there are images, or without their count of errors.

    Raises:
        CheckpointError: They aren't what imagetune writes.
    """
    unread = file.note.get("unread", None if file.rows else 0)
    if file.rows > count or not isinstance(unread, int) or not 0 <= unread <= file.rows:
        what = f"what is kept of it isn't what imagetune writes: {file.rows:,} rows of {count:,}, {unread!r} unread"
        raise CheckpointError(what, where=str(path), hint="remove the folder of its kept rows to begin again")


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
