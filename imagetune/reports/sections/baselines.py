"""The baselines section: the model beside a constant prediction, nearest neighbours and a linear probe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from imagetune.recipe.metrics import METRICS, is_lower_better
from imagetune.recipe.tasks import Task
from imagetune.run_folder.reader import RunFiles


def view_baselines(run: RunFiles) -> Mapping[str, Any] | None:
    """Return what the report's section on baselines shows; None where evaluation.json has none."""
    found = run.evaluation.get("baselines")
    split = run.evaluation.get("splits", {}).get(found["tested"]) if found else None
    if not found or not split:
        return None
    own = {"title": "This model", "how": "", "metrics": split["metrics"], "difference": None, "verdict": ""}
    rows = [own, *(_row(model, found) for model in found["models"])]
    signed = partial(_signed, name=found["compared"])
    names = {name: METRICS[name].title for name in found["models"][0]["metrics"]}
    return {**found, "names": names, "rows": rows, "verdict": _describe_verdict(found), "signed": signed}


def _signed(value: float, name: str) -> str:
    """Return a difference with its sign; of metrics in the units of the labels with four digits."""
    return f"{value:+.4g}" if METRICS[name].has_units else f"{value:+.3f}"


def _row(model: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    title, how = _describe_baseline(model, found["task"])
    return {**model, "title": title, "how": how, "verdict": _compare(model, found["compared"])}


def _describe_baseline(model: Mapping[str, Any], task: Task) -> tuple[str, str]:
    if model["name"] == "prior":
        prior: Mapping[Task, tuple[str, str]] = {
            "single_label": ("Majority class", "the same prediction for every image"),
            "ordinal": ("Median class", "the same prediction for every image"),
            "multi_label": ("Label frequencies", "the same prediction for every image"),
            "regression": ("Median", "the same number for every image"),
        }
        return prior[task]
    if model["name"] == "neighbours":
        count = int(model["chosen"]["neighbours"])
        how = "the nearest training image" if count == 1 else f"the {count} nearest training images"
        return "Nearest neighbour" if count == 1 else "Nearest neighbours", f"{how} by features"
    kind = "ridge" if task == "regression" else "logistic"
    return "Linear probe", f"{kind} regression on the features"


def _compare(model: Mapping[str, Any], compared: str) -> str:
    """Return in words whether the model is better than a baseline, by the interval of their difference."""
    low, high = model["difference"]["low"], model["difference"]["high"]
    if low is None or high is None:
        return ""
    if is_lower_better(compared):
        # Of an error the negative difference is the better one; the opposite sign swaps the ends.
        low, high = -high, -low
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


def _describe_verdict(found: Mapping[str, Any]) -> str:
    """Return the one sentence that matters most."""
    verdicts = {model["name"]: _compare(model, found["compared"]) for model in found["models"]}
    names = {
        "prior": "a constant prediction",
        "neighbours": "nearest neighbours",
        "probe": "a linear probe",
    }
    beaten = [names[name] for name, word in verdicts.items() if word == "better"]
    level = [names[name] for name, word in verdicts.items() if word == "not distinguishable"]
    lost = [names[name] for name, word in verdicts.items() if word == "worse"]
    return " ".join(_list_sentences(beaten, level, lost))


def _list_sentences(beaten: list[str], level: list[str], lost: list[str]) -> Iterator[str]:
    # First, as it is the one sentence that asks for something to be done.
    if lost:
        yield f"The model is worse than {' and '.join(lost)}: train it longer, or use the baseline."
    if beaten:
        yield f"The model is better than {' and '.join(beaten)}."
    if level:
        yield f"There is no significant difference between the model and {' and '.join(level)}."
