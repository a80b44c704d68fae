"""A finished run tested again: on its own test images, or on others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagetune.data.splits.holdout import open_holdout
from imagetune.evaluation.document import evaluate_split, evaluation_document
from imagetune.model.manifest import LoadedModel
from imagetune.recipe.evaluate import Requirement
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.requirements import with_requirements
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.open import open_run, run_splits
from imagetune.runs.test import groups_of, labelled_records, predict_labelled


def evaluate(run: str, *, data: Path | None = None, require: Sequence[Requirement] = ()) -> dict[str, Any]:
    """Return the evaluation document of a run on its own test split, or on other labelled images.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        data: Other labelled images.
        require: Bars besides those of the recipe.

    Returns:
        The document; with ``unusable``, path and reason, where some of the other images had to be left out.

    Raises:
        ModelFileError: It is no finished run.
        DataError: There are no such images, or they can't be read.
    """
    folder, loaded = open_run(run)
    return evaluate_model(folder, loaded, data=data, require=require)


def evaluate_model(
    folder: RunFolder, loaded: LoadedModel, *, data: Path | None = None, require: Sequence[Requirement] = ()
) -> dict[str, Any]:
    """Return the evaluation document of a run whose model is loaded already; otherwise as `evaluate`."""
    recipe = load_recipe(folder.recipe).recipe
    unusable: dict[str, str] = {}
    if data:
        records, unusable = labelled_records(data, recipe.data)
    else:
        records = open_holdout(run_splits(folder, recipe.data, loaded.class_names))
    predictions = predict_labelled(loaded.model, records, loaded.class_names, recipe, thresholds=loaded.thresholds)
    evaluation = evaluate_split(predictions, config=recipe.evaluate, seed=recipe.seed, groups=groups_of(records))
    document = evaluation_document({"test": evaluation}, config=with_requirements(recipe.evaluate, require))
    return document | ({"unusable": unusable} if unusable else {})
