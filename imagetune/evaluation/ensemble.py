"""Deep ensembles: several models as one, by the mean of their probabilities or numbers.

An ensemble (Lakshminarayanan et al. 2017, arXiv 1612.01474) is usually more accurate than its members and better
calibrated; it costs a forward pass of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from imagetune.evaluation.image_predictions import (
    NO_DECISION_RULES,
    DecisionRules,
    ImagePrediction,
    build_image_predictions,
)
from imagetune.evaluation.predict import predict_images
from imagetune.evaluation.predictions import Predictions
from imagetune.model.loaded import LoadedModel


def predict_with_models(
    models: Sequence[LoadedModel], paths: Sequence[str], ways: DecisionRules = NO_DECISION_RULES, *, start: int = 0
) -> Iterator[ImagePrediction]:
    """Yield the prediction of a model, or the mean of several models' predicted probabilities, for each path in order.

    Each model gets the image in its own size and applies its own test-time augmentation. All stay loaded, so that the
    first prediction comes after one batch and not after all images.

    Args:
        models: One model, or several with the same classes.
        paths: The files.
        ways: The decision rules to apply, of one model alone.
        start: The first path to predict.
    """
    if len(models) == 1:
        return predict_images(models[0], paths, ways, start=start)
    together = combine_models(models)
    streams = [predict_images(model, paths, start=start) for model in models]
    return (average_image_predictions(predictions, together) for predictions in zip(*streams, strict=True))


def average_predictions(members: Sequence[Predictions]) -> Predictions:
    """Return the ensemble's predictions: the mean of several models' predictions for the same images.

    Args:
        members: Predictions for the same n images in the same order, with the same k class names in any order.

    Returns:
        Mean predictions, with the first member's paths, labels and order of classes; thresholds of multi_label are
        averaged, too.

    Raises:
        ValueError: The images or the classes differ.
    """
    first = members[0]
    total = np.zeros_like(first.probabilities)
    for member in members:
        # Rows are averaged by position, so that another order would mix images.
        if member.paths != first.paths:
            raise ValueError("the members' images differ")
        # Members may have the same classes in different columns.
        total += member.probabilities[:, find_column_order(first.class_names, member.class_names)]
    return replace(first, probabilities=total / len(members), thresholds=_mean_thresholds(members))


def combine_models(models: Sequence[LoadedModel]) -> LoadedModel:
    """Return the first model with the mean thresholds of all, to turn the mean of their outputs into labels.

    Decision rules that validation chose for the first model alone don't hold for the ensemble, and are left out.
    """
    thresholds = _mean_thresholds(models)
    first = replace(models[0], temperature=None, conformal=None, operating_point=None, costs=None, detector=None)
    return replace(first, thresholds=thresholds)


def average_image_predictions(predictions: Sequence[ImagePrediction], together: LoadedModel) -> ImagePrediction:
    """Return the ensemble's prediction for one image, or the error of the member that could not read it.

    The image is flagged as out-of-distribution where more than half of the members with a detector flag it: their
    scores have scales of their own and can't be averaged, and a vote keeps the false-alarm rate near that of one model.

    Args:
        predictions: The members' predictions for the same image.
        together: The result of `combine_models`, with the order of the classes and the thresholds.
    """
    for prediction in predictions:
        if prediction.error is not None:
            return prediction
    rows = [
        [prediction.probabilities[name] for name in together.class_names]
        if prediction.value is None
        else [prediction.value]
        for prediction in predictions
    ]
    (found,) = build_image_predictions([predictions[0].path], np.mean(rows, axis=0)[None], together)
    votes = [prediction.out_of_distribution for prediction in predictions if prediction.out_of_distribution is not None]
    if not votes:
        return found
    share = sum(votes) / len(votes)
    return replace(found, out_of_distribution=share > 1 / 2, out_of_distribution_score=share)


def find_column_order(wanted: Sequence[str], present: Sequence[str]) -> list[int]:
    """Return the index of each of the ``wanted`` class names among those ``present``.

    Raises:
        ValueError: The names are not the same.
    """
    if sorted(wanted) != sorted(present):
        raise ValueError(f"the classes {sorted(present)} are not {sorted(wanted)}")
    place = {name: index for index, name in enumerate(present)}
    return [place[name] for name in wanted]


def _mean_thresholds(members: Sequence[Predictions] | Sequence[LoadedModel]) -> tuple[float, ...]:
    """Return the mean of the members' thresholds in the first one's order of classes; empty if no member has any."""
    if not any(member.thresholds for member in members):
        return ()
    wanted = members[0].class_names
    rows = [
        # A member without thresholds predicts labels from 0.5 on, which so counts as its threshold.
        np.array(member.thresholds or [0.5] * len(wanted))[find_column_order(wanted, member.class_names)]
        for member in members
    ]
    return tuple(float(value) for value in np.mean(rows, axis=0))
