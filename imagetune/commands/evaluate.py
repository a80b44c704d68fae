"""A finished run tested again: on its own test images, on other labelled images, or under corruptions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from imagetune.commands.ensemble import evaluate_ensemble
from imagetune.commands.evaluate_robustness import evaluate_robustness
from imagetune.core.files import read_json_or_empty
from imagetune.core.messages import Say, say_nothing
from imagetune.data.splits.holdout import open_holdout
from imagetune.errors import RecipeError
from imagetune.evaluation.document import build_evaluation_document, evaluate_split
from imagetune.model.loaded import LoadedModel
from imagetune.model.manifest import read_manifest
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.requirements import add_requirements
from imagetune.recipe.sections.evaluate import Requirement
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.lineage import Member, SeenPolicy, choose_tested_images, hash_images
from imagetune.runs.open import open_run, read_run_splits
from imagetune.runs.test import list_groups, predict_labelled, read_labelled_records


def evaluate(
    run: str,
    *,
    others: Sequence[str] = (),
    data: Path | None = None,
    require: Sequence[Requirement] = (),
    seen: SeenPolicy = "refuse",
    robustness: bool = False,
    say: Say = say_nothing,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Return the metrics of a run, with confidence intervals, on its test split or on other labelled images.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        others: More runs; the mean of all runs' probabilities is tested, on the first one's test split.
        data: Other labelled images: a folder of class folders, or a table.
        require: Requirements besides those of the recipe.
        seen: What is done with images that a run was trained or selected with: ``allow`` tests on them, too, and no
            requirement is met then; ``skip`` tests on the others alone.
        robustness: Test on corrupted versions of the run's own test images instead, and write the result into its
            folder; see `imagetune.commands.evaluate_robustness`.
        say: Receives what could not be sent to MLflow.
        progress: Called during a robustness test with how many images the model has seen, and how many there are.

    Returns:
        JSON values, laid out as evaluation.json; with ``unusable``, path and reason, where some of the other images had
        to be left out; with ``members`` for several runs; with ``seen``, how many images a run was trained or selected
        with: see `imagetune.runs.lineage.choose_tested_images`.

    Raises:
        RecipeError: A robustness test is asked for together with other images, runs or requirements.
        ModelFileError: It is no finished run, or the runs' classes differ.
        DataError: There are no such images, they can't be read, or some run was trained or selected with them.
    """
    if robustness:
        # What a robustness test finds is written into the run's folder: it has to be of that run and its images alone.
        if data is not None or others or require:
            hint = "leave --data, --with and --require out"
            raise RecipeError("uses the run's own test images", where="--robustness", hint=hint)
        return evaluate_robustness(run, say=say, progress=progress)
    if others:
        return evaluate_ensemble((run, *others), data=data, require=require, seen=seen)
    folder, loaded = open_run(run)
    return evaluate_model(folder, loaded, data=data, require=require, seen=seen)


def evaluate_model(
    folder: RunFolder,
    loaded: LoadedModel,
    *,
    data: Path | None = None,
    require: Sequence[Requirement] = (),
    seen: SeenPolicy = "refuse",
) -> dict[str, Any]:
    """Return the metrics of a run whose model is loaded already; otherwise as `evaluate` for one run."""
    recipe = load_recipe(folder.recipe).recipe
    unusable: dict[str, str] = {}
    told: dict[str, Any] | None
    if data:
        member = Member(str(folder.path), folder, read_manifest(folder.model))
        records, unusable = read_labelled_records(data, recipe.data, loaded.class_names)
        records, told = choose_tested_images([member], records, hash_images(records), policy=seen)
    else:
        # From the run's own splits.csv: the source may have changed since, and split again it could bring images of the
        # training into the test.
        records = open_holdout(read_run_splits(folder, recipe.data, loaded.class_names))
        told = read_json_or_empty(folder.evaluation).get("seen")
    predictions = predict_labelled(loaded.model, records, loaded.class_names, recipe, thresholds=loaded.thresholds)
    evaluation = evaluate_split(predictions, config=recipe.evaluate, seed=recipe.seed, groups=list_groups(records))
    document = build_evaluation_document(
        {"test": evaluation},
        config=add_requirements(recipe.evaluate, require),
        seen=told,
    )
    return document | ({"unusable": unusable} if unusable else {})
