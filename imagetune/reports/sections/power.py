"""The section on statistical power: differences between the splits, the minimum detectable difference, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.recipe.metrics import METRICS
from imagetune.run_folder.reader import SPLITS, RunFiles

_METHODS = {
    "wilson": "Wilson's score interval, for shares of independent images",
    "effective wilson": "Wilson's score interval, with the effective number of images by the variance of the metric",
    "jackknife": "jackknife, leaving out one image or group at a time",
    "clopper-pearson": "the exact interval of Clopper and Pearson, where nothing or everything is right",
    "percentile": "bootstrap percentiles, widened for small samples",
    "logit": "symmetric in the logit",
}


def view_power(run: RunFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None for old runs, whose evaluation.json has no gaps."""
    gaps = {pair: metrics for pair, metrics in run.evaluation.get("gaps", {}).items() if metrics}
    tested = run.tested_split
    if not gaps or tested is None:
        return None
    return {
        "gaps": {_name_gap(pair): metrics for pair, metrics in gaps.items()},
        "titles": {name: _format_title(name) for name in next(iter(gaps.values()))},
        "power": run.evaluation.get("power"),
        "groups": tested.get("groups", 0),
        "methods": _list_methods(tested["metrics"]),
        "samples": run.evaluation["bootstrap"]["samples"],
    }


def _format_title(name: str) -> str:
    """Return a metric's name as it stands within a sentence."""
    return METRICS[name].in_words if name in METRICS else name.replace("_", " ")


def _name_gap(pair: str) -> str:
    first, second = pair.split("_")
    return f"{SPLITS[first]} minus {SPLITS[second]}"


def _list_methods(metrics: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return the names of the metrics of each interval method with a description of it."""
    used: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if method := metric.get("method"):
            used.setdefault(method, []).append(_format_title(name))
    return [(", ".join(names), _METHODS[method]) for method, names in used.items() if method in _METHODS]
