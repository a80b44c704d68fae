"""The sentences of a model card about the sections of evaluation.json beyond the metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imagetune.recipe.metrics import METRICS, VERDICT_METRICS, is_lower_better

Section = Mapping[str, Any]


def measured_sentences(evaluation: Section) -> Iterator[tuple[str, list[str]]]:
    """Yield a title and sentences for each section of evaluation.json that the card describes.

    Args:
        evaluation: Content of evaluation.json; sections that it lacks are left out.
    """
    for key, (title, describe) in _SECTIONS.items():
        section = evaluation.get(key)
        if section and (lines := [line for line in describe(section) if line]):
            yield title, lines


def _name_metric(name: str) -> str:
    return METRICS[name].in_words


def _format_metric(value: Section | None, digits: int = 3) -> str:
    if not value or value.get("value") is None:
        return "unknown"
    text = f"{value['value']:.{digits}f}"
    low, high = value.get("low"), value.get("high")
    return text if low is None or high is None else f"{text} ({low:.{digits}f} to {high:.{digits}f})"


def _format_percent(value: Section | None) -> str:
    if not value or value.get("value") is None:
        return "unknown"
    text = f"{100 * value['value']:.1f}%"
    low, high = value.get("low"), value.get("high")
    return text if low is None or high is None else f"{text} ({100 * low:.1f} to {100 * high:.1f})"


def _describe_gaps(section: Section) -> Iterator[str]:
    found = section.get("train_test") or {}
    for name in VERDICT_METRICS:
        if name in found:
            yield f"The {_name_metric(name)} on training minus that on test is {_format_metric(found[name])}."
            return


def _describe_folds(section: Section) -> Iterator[str]:
    for name in VERDICT_METRICS:
        if found := section["metrics"].get(name):
            spread = _format_metric({**found, "value": found["mean"]})
            extremes = f"{found['min']:.3f} to {found['max']:.3f}"
            yield f"The mean {_name_metric(name)} of {section['count']} folds is {spread}; they range from {extremes}."
            return


def _describe_text(section: Section) -> Iterator[str]:
    yield str(section.get("text", ""))


def _describe_baselines(section: Section) -> Iterator[str]:
    names = {"prior": "a constant prediction", "neighbours": "nearest neighbours", "probe": "a linear probe"}
    for model in section["models"]:
        reached = _format_metric(model["metrics"][section["compared"]])
        gain = _format_metric(_orient_gain(model["difference"], section["compared"]))
        # No article: names of metrics begin as accuracy, F1, balanced accuracy and ROC AUC do.
        what = f"The {_name_metric(section['compared'])} of {names.get(model['name'], model['name'])}"
        yield f"{what} is {reached}; this model gains {gain}."


def _orient_gain(difference: Section, metric: str) -> Section:
    """Return a difference as the gain of the model, negative where it is worse."""
    if not is_lower_better(metric) or difference.get("value") is None:
        return difference
    low, high = difference.get("low"), difference.get("high")
    # The opposite sign swaps the ends.
    ends = {"low": None if high is None else -high, "high": None if low is None else -low}
    return {**difference, "value": -difference["value"], **ends}


def _describe_calibration(section: Section) -> Iterator[str]:
    tested = section["splits"].get("test")
    if tested:
        yield f"The calibration error on the test images is {_format_metric(tested['before']['ece'])}."
        if tested["after"]:
            temperature = _format_metric(section["temperature"], 2)
            after = _format_metric(tested["after"]["ece"])
            yield f"With the temperature {temperature}, which is fitted on validation, it is {after}."


def _describe_selective(section: Section) -> Iterator[str]:
    for point in section.get("points", []):
        # Of the coverages in evaluation.json 1 abstains from nothing, and 0.5 leaves half of the images.
        if 0.7 < point["coverage"] < 1:
            coverage, accuracy = _format_percent(point["predicted"]), _format_percent(point["accuracy"])
            yield f"At a coverage of {coverage}, the accuracy is {accuracy}."


def _describe_conformal(section: Section) -> Iterator[str]:
    if "covered" in section:
        kind = "sets"
        if section.get("method") == "absolute_residual" and section["threshold"] is not None:
            kind = f"intervals of ±{section['threshold']:.4g}"
        target = f"a target coverage of {100 * section['coverage']:.0f}%"
        yield f"Prediction {kind} with {target} cover {_format_percent(section['covered'])} of the test images."


def _describe_label_errors(section: Section) -> Iterator[str]:
    for side, where in (("learned", "training and validation"), ("test", "test")):
        found = section.get(side)
        if found and not found.get("beyond_chance", True):
            yield f"No more {where} labels are suspected than chance alone gives."
        elif found:
            # Only the document of regression has ``beyond``, its number of standard deviations.
            how = "the nearest neighbours" if "beyond" in section else "confident learning"
            confirmed = f", {found['confident']} of them confirmed by {how}" if found.get("marked") else ""
            yield (
                f"{found['found']} of {found['images']} {where} labels are suspected{confirmed}; without any wrong "
                f"label about {found['expected_false_alarms']['found']:.0f} would be."
            )


def _describe_out_of_distribution(section: Section) -> Iterator[str]:
    if section["threshold"] is None:
        reason = str(section["reason"])
        yield f"{reason[:1].upper()}{reason[1:]}."
        return
    tested = section["splits"].get("test")
    if tested:
        yield f"{_format_percent(tested['flagged'])} of the test images are flagged as out-of-distribution."
    if section.get("wrong"):
        flagged, kept = (_format_percent(section["wrong"].get(name)) for name in ("flagged", "kept"))
        yield f"The error rate of flagged images is {flagged}, that of the others {kept}."


def _describe_robustness(section: Section) -> Iterator[str]:
    if section.get("mean_corruption_error"):
        error = _format_metric(section["mean_corruption_error"])
        yield f"The mean corruption error over the 15 common corruptions is {error}."


_SECTIONS = {
    "gaps": ("Generalisation gap", _describe_gaps),
    "power": ("Statistical power", _describe_text),
    "folds": ("Cross-validation", _describe_folds),
    "residuals": ("Residuals", _describe_text),
    "rank_errors": ("Rank errors", _describe_text),
    "label_confusions": ("Label confusions", _describe_text),
    "baselines": ("Baselines", _describe_baselines),
    "calibration": ("Calibration", _describe_calibration),
    "selective_prediction": ("Selective prediction", _describe_selective),
    "conformal": ("Conformal prediction", _describe_conformal),
    "slices": ("Slices", _describe_text),
    "robustness": ("Robustness to corruptions", _describe_robustness),
    "out_of_distribution": ("Out-of-distribution detection", _describe_out_of_distribution),
    "label_errors": ("Suspected label errors", _describe_label_errors),
}
