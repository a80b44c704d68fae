"""Predictions for any images by the model of a finished run, or by the mean of several runs, as a stream."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from imagetune.core.messages import Say, say_nothing
from imagetune.data.sources.image_list import ImageList, list_images
from imagetune.data.sources.read import build_unreadable_error
from imagetune.errors import ModelFileError, RecipeError
from imagetune.evaluation.ensemble import predict_with_models
from imagetune.evaluation.image_predictions import NO_DECISION_RULES, DecisionRules, ImagePrediction, require_rules
from imagetune.model.loaded import LoadedModel
from imagetune.model.manifest import load_model
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.source_kinds import TABLE_SUFFIXES
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.lineage import Member, open_members


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
    check_rules(rules, others)
    members = open_members((run, *others))
    # Before the models: a path without images is found in a moment, loading takes seconds.
    images = list_run_images(members[0].folder, paths, say=say)
    # This function is no generator itself, so that wrong options raise at the call and not at the first prediction.
    return _require_readable(predict_listed(load_models(members, rules), images, rules))


def predict_listed(
    models: Sequence[LoadedModel], images: ImageList, rules: DecisionRules = NO_DECISION_RULES
) -> Iterator[ImagePrediction]:
    """Yield the prediction of one model, or of the mean of several, for each image of a list, which is then closed."""
    with images:
        yield from predict_with_models(models, images, rules)


def check_rules(rules: DecisionRules, others: Sequence[str]) -> None:
    """Refuse decision rules that exclude each other, or that several runs can't apply, before a model is loaded.

    Raises:
        RecipeError: They do.
    """
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


def load_models(members: Sequence[Member], rules: DecisionRules, *, scored: bool = False) -> list[LoadedModel]:
    """Return the models of runs, which have what is asked of them.

    Args:
        members: The runs.
        rules: Decision rules that the first one's manifest has to have.
        scored: Whether some model has to have an out-of-distribution score.

    Raises:
        ModelFileError: A model is corrupted, or lacks what is asked of it.
    """
    models = [load_model(member.folder.model) for member in members]
    require_rules(models[0], rules)
    if scored and all(model.detector is None for model in models):
        hint = "leave it out; evaluate.out_of_distribution is off, or there were too few images, as the report says"
        raise ModelFileError("the model has no out-of-distribution score", where="--ood", hint=hint)
    return models


def _require_readable(predictions: Iterable[ImagePrediction]) -> Iterator[ImagePrediction]:
    readable = False
    for prediction in predictions:
        readable |= prediction.error is None
        yield prediction
    # After the last one: the reasons of all images have been printed by then.
    if not readable:
        raise build_unreadable_error()
