"""The sentences of a model card, from the parts of evaluation.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imagetune.recipe.metrics import VERDICT_METRICS, is_lower_better

Part = Mapping[str, Any]


def measured_sentences(evaluation: Part) -> Iterator[tuple[str, list[str]]]:
    """Yield a title and sentences for every deeper part that a run has.

    Args:
        evaluation: Content of evaluation.json; parts that it has not are left out.
    """
    for key, (title, tell) in _PARTS.items():
        part = evaluation.get(key)
        if part and (lines := [line for line in tell(part) if line]):
            yield title, lines


def _metric(value: Part | None, digits: int = 3) -> str:
    if not value or value.get("value") is None:
        return "unknown"
    text = f"{value['value']:.{digits}f}"
    low, high = value.get("low"), value.get("high")
    return text if low is None or high is None else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def _percent(value: Part | None) -> str:
    if not value or value.get("value") is None:
        return "unknown"
    text = f"{100 * value['value']:.1f}%"
    low, high = value.get("low"), value.get("high")
    return text if low is None or high is None else f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def _gaps(part: Part) -> Iterator[str]:
    found = part.get("train_test") or {}
    for name in VERDICT_METRICS:
        if name in found:
            yield f"{name}, training less test: {_metric(found[name])}"
            return


def _folds(part: Part) -> Iterator[str]:
    for name in VERDICT_METRICS:
        if found := part["metrics"].get(name):
            spread = _metric({**found, "value": found["mean"]})
            yield f"{name}, mean of {part['count']} folds: {spread}; from {found['least']:.3f} to {found['most']:.3f}"
            return


def _text(part: Part) -> Iterator[str]:
    yield str(part.get("text", ""))


def _baselines(part: Part) -> Iterator[str]:
    names = {"prior": "one prediction for all", "neighbours": "the nearest neighbours", "probe": "a linear probe"}
    for model in part["models"]:
        compared = f"{part['compared']} {_metric(model['metrics'][part['compared']])}"
        ahead = f"this model is ahead by {_metric(_gain(model['difference'], part['compared']))}"
        yield f"{names.get(model['name'], model['name'])} of the same features: {compared}; {ahead}"


def _gain(difference: Part, metric: str) -> Part:
    """Return a difference as what the model gains, below 0 where it loses."""
    if not is_lower_better(metric) or difference.get("value") is None:
        return difference
    low, high = difference.get("low"), difference.get("high")
    ends = {"low": None if high is None else -high, "high": None if low is None else -low}
    return {**difference, "value": -difference["value"], **ends}


def _calibration(part: Part) -> Iterator[str]:
    tested = part["splits"].get("test")
    if tested:
        yield f"calibration error on the test: {_metric(tested['before']['ece'])}"
        if tested["after"]:
            temperature = _metric(part["temperature"], 2)
            yield f"{_metric(tested['after']['ece'])} at the temperature {temperature} that validation gives"


def _selective(part: Part) -> Iterator[str]:
    for point in part.get("points", []):
        if 0.7 < point["coverage"] < 1:
            yield f"predicting {_percent(point['predicted'])} of the images, {_percent(point['accuracy'])} are right"


def _conformal(part: Part) -> Iterator[str]:
    if "covered" in part:
        sets = "sets that promise"
        if part.get("method") == "absolute_residual" and part["threshold"] is not None:
            sets = f"intervals of {part['threshold']:.4g} to either side that promise"
        promised = f"{sets} {100 * part['coverage']:.0f}%"
        yield f"{promised} hold the truth for {_percent(part['covered'])} of the test images"


def _label_errors(part: Part) -> Iterator[str]:
    for side, where in (("learned", "training and validation"), ("test", "test")):
        found = part.get(side)
        if found:
            how = "also by the nearest images" if "beyond" in part else "surely enough for confident learning"
            sure = f", {found['confident']} of them {how}" if "confident" in found else ""
            yield f"{found['found']} of {found['images']} {where} labels are suspected{sure}"


def _out_of_distribution(part: Part) -> Iterator[str]:
    tested = part["splits"].get("test")
    if tested:
        yield f"{_percent(tested['flagged'])} of the test images are told to be unlike those of training"
    if part.get("wrong"):
        away, kept = part["wrong"].get("flagged"), part["wrong"].get("kept")
        yield f"of those it turns away {_percent(away)} are wrong, of those it keeps {_percent(kept)}"


def _robustness(part: Part) -> Iterator[str]:
    if part.get("mean_corruption_error"):
        yield f"mean error under the 15 common corruptions: {_metric(part['mean_corruption_error'])}"


_PARTS = {
    "gaps": ("From training to test", _gaps),
    "power": ("Statistical power of the test", _text),
    "folds": ("Cross-validation", _folds),
    "residuals": ("How far off it is", _text),
    "rank_errors": ("How many ranks off it is", _text),
    "label_confusions": ("Labels that go wrong together", _text),
    "baselines": ("Beside simple models", _baselines),
    "calibration": ("Whether probabilities mean what they say", _calibration),
    "selective_prediction": ("If it may decline to prediction", _selective),
    "conformal": ("Sets instead of single predictions", _conformal),
    "slices": ("Parts of the test", _text),
    "robustness": ("Corrupted images", _robustness),
    "out_of_distribution": ("Images unlike those of training", _out_of_distribution),
    "label_errors": ("Labels that are probably wrong", _label_errors),
}
