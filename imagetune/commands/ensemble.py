"""Several runs that answer together: the mean of what they say, and a test of it that none of them has prepared for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from imagetune.data.sources.read import find_pictures
from imagetune.data.sources.records import Record
from imagetune.data.splits.holdout import open_holdout
from imagetune.evaluation.document import evaluate_split, evaluation_document
from imagetune.evaluation.ensemble import combined, mean_picture, mean_predictions
from imagetune.evaluation.predict import PicturePrediction, predict_pictures
from imagetune.evaluation.predictions import Predictions
from imagetune.model.manifest import load_model
from imagetune.recipe.bars import with_bars
from imagetune.recipe.tracking import Requirement
from imagetune.runs.lineage import Member, hash_pictures, open_members, refuse_seen
from imagetune.runs.test import groups_of, labelled_records, predict_labelled


def predict(runs: Sequence[str], paths: Sequence[str]) -> Iterator[PicturePrediction]:
    """Yield the mean of several runs' predictions for each picture in files, folders and globs.

    Each run sees the picture in its own size and through its own views.

    Raises:
        ModelFileError: The runs' classes differ.
        DataError: There is no picture.
    """
    members = open_members(runs)
    pictures = find_pictures(paths)
    models = [load_model(member.folder.model) for member in members]
    together = combined(models)
    for answers in zip(*(predict_pictures(model, pictures) for model in models), strict=True):
        yield mean_picture(answers, together)


def evaluate(runs: Sequence[str], *, data: Path | None = None, require: Sequence[Requirement] = ()) -> dict[str, Any]:
    """Return the evaluation document of several runs together, as `imagetune.commands.evaluate.evaluate` does of one.

    Args:
        runs: The first one's test split is used, and its ``evaluate`` section.
        data: Other labelled pictures instead.
        require: Bars besides those of the first run's recipe.

    Returns:
        The document, with ``members``: each run's name and views; and ``unusable`` as of one run.

    Raises:
        ModelFileError: The runs' classes differ.
        DataError: Some run was trained or selected with a picture of the test.
    """
    members = open_members(runs)
    first = members[0]
    records, unusable = _unseen_records(members, data)
    predictions = mean_predictions([_predict(member, records) for member in members])
    evaluation = evaluate_split(
        predictions, config=first.recipe.evaluate, seed=first.recipe.seed, groups=groups_of(records)
    )
    document = evaluation_document({"test": evaluation}, config=with_bars(first.recipe.evaluate, require))
    told = [{"run": member.name, "views": list(member.recipe.evaluate.views)} for member in members]
    return document | {"members": told} | ({"unusable": unusable} if unusable else {})


def _unseen_records(members: Sequence[Member], data: Path | None) -> tuple[tuple[Record, ...], dict[str, str]]:
    """Return the pictures to test on, none of which a member learned from, and those that can't be used."""
    first, *others = members
    unusable: dict[str, str] = {}
    if data is None:
        records = open_holdout(first.splits)
        hashes = first.hashes
    else:
        records, unusable = labelled_records(data, first.recipe.data)
        hashes = hash_pictures(records)
        others = [*members]
    for member in others:
        refuse_seen(member, records, hashes)
    return records, unusable


def _predict(member: Member, records: Sequence[Record]) -> Predictions:
    model = load_model(member.folder.model).model
    manifest = member.manifest
    return predict_labelled(model, records, manifest.class_names, member.recipe, thresholds=manifest.thresholds)
