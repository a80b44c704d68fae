"""A test of an ensemble of runs, the mean of their predicted probabilities, on images that no run has seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.evaluation.document import build_evaluation_document, evaluate_split
from imagetune.evaluation.ensemble import average_predictions
from imagetune.evaluation.predictions import Predictions
from imagetune.model.manifest import load_model
from imagetune.recipe.requirements import add_requirements
from imagetune.recipe.sections.evaluate import Requirement
from imagetune.runs.lineage import Member, SeenPolicy, choose_tested_images, hash_images, open_members
from imagetune.runs.test import list_groups, predict_labelled, read_labelled_records


def evaluate_ensemble(
    runs: Sequence[str],
    *,
    data: Path | None = None,
    require: Sequence[Requirement] = (),
    seen: SeenPolicy = "refuse",
) -> dict[str, Any]:
    """Return the metrics of the mean of several runs, as `imagetune.commands.evaluate.evaluate` does for one run.

    Args:
        runs: The first one's test split is used, and its ``evaluate`` section.
        data: Other labelled images instead.
        require: Requirements besides those of the first run's recipe.
        seen: What is done with images that a run was trained or selected with; as of
            `imagetune.commands.evaluate.evaluate`.

    Returns:
        The document, with ``members``: each run's name and its TTA transforms; ``unusable`` and ``seen`` as for one
        run.

    Raises:
        ModelFileError: The runs' classes differ.
        DataError: Some run was trained or selected with an image of the test.
    """
    members = open_members(runs)
    first = members[0]
    records, unusable, told = _read_records(members, data, seen)
    # One model after the other, so that only one of them needs memory.
    predictions = average_predictions([_predict(member, records) for member in members])
    evaluation = evaluate_split(
        predictions, config=first.recipe.evaluate, seed=first.recipe.seed, groups=list_groups(records)
    )
    config = add_requirements(first.recipe.evaluate, require)
    document = build_evaluation_document({"test": evaluation}, config=config, seen=told)
    described = [{"run": member.name, "tta": list(member.recipe.evaluate.tta)} for member in members]
    return document | {"members": described} | ({"unusable": unusable} if unusable else {})


def _read_records(
    members: Sequence[Member], data: Path | None, seen: SeenPolicy
) -> tuple[tuple[Record, ...], dict[str, str], dict[str, Any]]:
    """Return the images to test on, those that can't be used, and as JSON values those that some member has seen."""
    first, *others = members
    unusable: dict[str, str] = {}
    if data is None:
        # The first run's split is no leak into itself; the other runs may have been split otherwise.
        records = open_holdout(first.splits)
        hashes = first.hashes
    else:
        records, unusable = read_labelled_records(data, first.recipe.data, first.manifest.class_names)
        hashes = hash_images(records)
        # Other images may be among any run's training images, the first one's too.
        others = [*members]
    records, told = choose_tested_images(others, records, hashes, policy=seen)
    return records, unusable, told


def _predict(member: Member, records: Sequence[Record]) -> Predictions:
    model = load_model(member.folder.model).model
    manifest = member.manifest
    return predict_labelled(model, records, manifest.class_names, member.recipe, thresholds=manifest.thresholds)
