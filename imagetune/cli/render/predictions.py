"""Predictions and saliency of single images as lines of tab-separated fields."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from imagetune.core.path_names import format_path
from imagetune.core.text import escape_controls

if TYPE_CHECKING:
    from imagetune.commands.explain import Explanation
    from imagetune.evaluation.image_predictions import ImagePrediction


def format_prediction(prediction: ImagePrediction) -> str:
    """Return path, label, probability, runner-up, margin, prediction set or interval, out-of-distribution flag."""
    if prediction.error is not None:
        return _join([format_path(prediction.path), f"error: {prediction.error}"])
    fields = [format_path(prediction.path), prediction.label or ""]
    probability = prediction.probabilities.get(prediction.label or "")
    if probability is not None:  # the joined labels of multi_label, and numbers, have none
        fields += [f"{probability:.3f}", *_format_runner_up(prediction)]
    if prediction.interval is not None:
        low, high = prediction.interval
        fields.append(f"{low:.6g} to {high:.6g}")
    elif prediction.prediction_set is not None:
        fields.append(f"{{{', '.join(prediction.prediction_set)}}}")
    if prediction.out_of_distribution:
        fields.append("out-of-distribution")
    return _join(fields)


def _join(fields: Iterable[str]) -> str:
    # A tab in a name would be one field more.
    return "\t".join(map(escape_controls, fields))


def _format_runner_up(prediction: ImagePrediction) -> list[str]:
    """Return the most probable other class, and how far ahead of it the label is; below 0 where a rule chose it."""
    others = {name: share for name, share in prediction.probabilities.items() if name != prediction.label}
    if not others:
        return []
    second = max(others, key=lambda name: others[name])
    margin = prediction.probabilities[prediction.label or ""] - others[second]
    return [f"then {second} {others[second]:.3f}", f"margin {margin:.3f}"]


def format_explanation(explanation: Explanation) -> str:
    """Return path, class, its probability or the number, the agreement of both saliency maps, and the written file."""
    if explanation.error is not None:
        return _join([format_path(explanation.path), f"error: {explanation.error}"])
    agreement = "-" if explanation.agreement is None else f"{explanation.agreement:+.2f}"
    # A probability is shown with three decimals, the number of a regression with its significant digits.
    number = f"{explanation.value:.6g}" if explanation.probability is None else f"{explanation.probability:.3f}"
    fields = (format_path(explanation.path), explanation.target, number, f"agreement {agreement}", explanation.file)
    return _join(map(str, fields))
