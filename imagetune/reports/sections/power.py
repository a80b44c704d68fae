"""The report's section on how sure its metrics are: gaps between the splits, and what the test can tell apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imagetune.run_folder.reader import SPLITS, RunFiles

_METHODS = {
    "wilson": "Wilson's, for a share of independent images",
    "effective wilson": "Wilson's, of as many images as the variance of the metric says that it is worth",
    "jackknife": "from what the metric would be without each image or group, longer where a few of them decide it",
    "clopper-pearson": "the exact one of Clopper and Pearson, where nothing or everything is right",
    "percentile": "the middle of the bootstrap's resamplings, widened for small samples",
}


def resolution_view(run: RunFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None for runs from before gaps were computed."""
    gaps = {pair: metrics for pair, metrics in run.evaluation.get("gaps", {}).items() if metrics}
    tested = run.tested_split
    if not gaps or tested is None:
        return None
    return {
        "gaps": {_told(pair): metrics for pair, metrics in gaps.items()},
        "names": list(next(iter(gaps.values()))),
        "resolution": run.evaluation.get("power"),
        "groups": tested.get("groups", 0),
        "methods": _methods(tested["metrics"]),
        "samples": run.evaluation["bootstrap"]["samples"],
    }


def _told(pair: str) -> str:
    first, second = pair.split("_")
    return f"{SPLITS[first]} minus {SPLITS[second]}"


def _methods(metrics: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return how the intervals were made, and of which metrics each way is."""
    used: dict[str, list[str]] = {}
    for name, metric in metrics.items():
        if method := metric.get("method"):
            used.setdefault(method, []).append(name.replace("_", " "))
    return [(", ".join(names), _METHODS[method]) for method, names in used.items() if method in _METHODS]
