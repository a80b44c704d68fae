"""Predictions for any images by the model of a finished run, or by the mean of several runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from imagetune.commands.ensemble import predict_ensemble
from imagetune.core.messages import Say, say_nothing
from imagetune.core.text import format_count
from imagetune.data.sources.read import build_unreadable_error, find_images, require_no_overwrite
from imagetune.errors import RecipeError
from imagetune.evaluation.predict import NO_DECISION_RULES, DecisionRules, ImagePrediction, predict_images
from imagetune.evaluation.prediction_table import write_prediction_table
from imagetune.runs.open import open_run


def predict(
    run: str,
    paths: Sequence[str],
    rules: DecisionRules = NO_DECISION_RULES,
    *,
    others: Sequence[str] = (),
    say: Say = say_nothing,
) -> Iterator[ImagePrediction]:
    """Yield a prediction for each image in files, folders and patterns, in their order.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        paths: Files, folders and patterns.
        rules: Which decision rules of the model's manifest are applied to its predictions.
        others: More runs; the probabilities of all runs are averaged.
        say: Receives what was passed over in folders, and why.

    Raises:
        RecipeError: The decision rules exclude each other, or there are several runs, whose manifests may differ.
        ModelFileError: It is no finished run, its model lacks what a rule needs, or the runs' classes differ.
        DataError: There is no image, or none of them can be read; the latter comes after the last prediction.
    """
    _check_rules(rules, others)
    # This function is no generator itself, so that wrong options raise at the call and not at the first prediction.
    return _require_readable(_predict(run, paths, rules, others, say))


def predict_to_csv(
    run: str,
    paths: Sequence[str],
    file: Path,
    rules: DecisionRules = NO_DECISION_RULES,
    *,
    others: Sequence[str] = (),
    say: Say = say_nothing,
) -> None:
    """Write a prediction for each image into a CSV file: a row an image, a column a class; otherwise as `predict`.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        paths: Files, folders and patterns.
        file: The CSV file.
        rules: Which decision rules of the model's manifest are applied to its predictions.
        others: More runs; the probabilities of all runs are averaged.
        say: Receives what was passed over in folders, and how many rows were written.

    Raises:
        ImagetuneError: As from `predict`; also a DataError where the file is one of the images.
    """
    _check_rules(rules, others)
    # The table's file may lie among the images that a pattern names.
    require_no_overwrite([file], find_images(paths))
    rows, unread = write_prediction_table(_predict(run, paths, rules, others, say), file)
    say("written", f"{file}: {format_count(rows, 'image')}" + (f", {unread:,} of them can't be read" if unread else ""))
    # Each row has its error; that not one image could be read is an exit code as well.
    if unread == rows:
        raise build_unreadable_error()


def _check_rules(rules: DecisionRules, others: Sequence[str]) -> None:
    """Refuse decision rules that exclude each other, or that several runs can't apply, before a model is loaded."""
    if rules.operating_point and rules.min_cost:
        what = "--operating-point and --min-cost exclude each other"
        raise RecipeError(what, where="--min-cost", hint="give one of them")
    if others and rules != NO_DECISION_RULES:
        # Temperatures and thresholds were fitted to one run's probabilities, not to the mean of several.
        what = "--calibrated, --sets, --operating-point and --min-cost need a single run"
        raise RecipeError(what, where="--with", hint="leave it out")


def _predict(
    run: str, paths: Sequence[str], rules: DecisionRules, others: Sequence[str], say: Say
) -> Iterator[ImagePrediction]:
    if others:
        return predict_ensemble((run, *others), paths, say=say)
    _, loaded = open_run(run)
    return predict_images(loaded, find_images(paths, say=say), rules)


def _require_readable(predictions: Iterable[ImagePrediction]) -> Iterator[ImagePrediction]:
    readable = False
    for prediction in predictions:
        readable |= prediction.error is None
        yield prediction
    # After the last one: the reasons of all images have been printed by then.
    if not readable:
        raise build_unreadable_error()
