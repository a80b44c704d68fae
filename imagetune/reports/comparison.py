"""A comparison of runs as one self-contained page, in the style of the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imagetune.data.sources.labels import label_rule
from imagetune.evaluation.comparison.document import amount, rounded_up
from imagetune.recipe.data import DataConfig
from imagetune.recipe.metrics import METRICS
from imagetune.reports.page import html_environment, write_page
from imagetune.reports.thumbnails import shown

THUMBNAIL_PIXELS = 176
MAX_IMAGES = 36
MAX_PATHS = 1000
# Rows of classes on the whole page, however many pairs share them.
MAX_CLASSES = 2000


def write_comparison(document: Mapping[str, Any], path: Path, *, root: Path, config: DataConfig) -> Path:
    """Write a comparison as one HTML page, and return its path.

    Args:
        document: From `comparison_document`.
        path: The file.
        root: Paths of images start here.
        config: How the images are read.

    Returns:
        The file.

    Raises:
        ResourceError: It can't be written.
    """
    return write_page(path, render_comparison(document, root=root, config=config))


def render_comparison(document: Mapping[str, Any], *, root: Path, config: DataConfig) -> str:
    """Return the page; the arguments are those of `write_comparison`."""
    metric = document["metric"]
    pairs = [_pair_view(document, pair) for pair in document["pairs"]]
    return (
        html_environment()
        .get_template("comparison.html.jinja")
        .render(
            document=document,
            metrics=METRICS,
            metric=metric,
            confidence=100 * document["confidence"],
            pairs=pairs,
            matrix=list(_matrix(document)),
            images=list(_images(document, root, config)),
            others=document["differing"]["listed"][MAX_IMAGES:][:MAX_PATHS],
            told=label_rule(config).told,
        )
    )


def _pair_view(document: Mapping[str, Any], pair: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pair with the places of its intervals in drawings, and its power in words."""
    shares = [metric["difference"] for name, metric in pair["metrics"].items() if METRICS[name].is_share]
    reach = _reach(shares)
    metrics = {
        name: {
            **metric,
            "bar": _bar(metric["difference"], reach if METRICS[name].is_share else _reach([metric["difference"]])),
        }
        for name, metric in pair["metrics"].items()
    }
    classes = _reach([found["difference"] for found in pair["per_class"]])
    per_class = [{**found, "bar": _bar(found["difference"], classes)} for found in pair["per_class"]]
    if document["task"] != "regression":
        per_class.sort(key=lambda found: found["p_value"])
    most = max(5, MAX_CLASSES // len(document["pairs"]))
    left_out = max(0, len(per_class) - most)
    return {
        **pair,
        "metrics": metrics,
        "per_class": per_class[:most],
        "classes_left_out": left_out,
        "power_text": _power_text(document, pair),
    }


def _power_text(document: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
    metric, power, told = document["metric"], pair["power"], []
    unit = " points" if METRICS[metric].is_share else ""
    if power["min_detectable_difference"] is not None:
        told.append(
            f"{document['images']:,} test images show a difference of "
            f"{amount(power['min_detectable_difference'], metric)}"
            f"{unit} of {METRICS[metric].in_words} in four of five tests."
        )
    if power["images_needed"] is not None:
        needed = rounded_up(power["images_needed"])
        told.append(f"For the difference that was seen, if it is real, about {needed:,} such images would do.")
    return " ".join(told)


def _reach(differences: list[dict[str, Any]]) -> float:
    """Return how far from 0 a drawing has to reach."""
    ends = [abs(found[end]) for found in differences for end in ("low", "value", "high") if found[end] is not None]
    return max(ends, default=0.0)


def _bar(difference: Mapping[str, Any], reach: float) -> dict[str, float] | None:
    """Return where an interval lies in a drawing whose middle is 0, in percent."""
    value, low, high = (difference[end] for end in ("value", "low", "high"))
    if not reach or value is None or low is None or high is None:
        return None
    left, dot, right = (50 + 48 * end / reach for end in (low, value, high))
    return {"left": left, "width": max(right - left, 0.5), "dot": dot}


def _matrix(document: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any] | None]]]:
    """Yield each run with its difference from each run in the deciding metric."""
    metric, keys = document["metric"], [run["key"] for run in document["runs"]]
    found = {(pair["first"], pair["second"]): pair for pair in document["pairs"]}
    for row in keys:
        cells: list[dict[str, Any] | None] = []
        for column in keys:
            pair = found.get((row, column)) or found.get((column, row))
            if pair is None:
                cells.append(None)
                continue
            sign = 1 if (row, column) in found else -1
            value = pair["metrics"][metric]["difference"]["value"]
            cells.append(
                {
                    "value": None if value is None else sign * value,
                    "p": pair["test"]["corrected"],
                    "better": "" if pair["better"] is None else "good" if pair["better"] == row else "bad",
                }
            )
        yield row, cells


def _images(document: Mapping[str, Any], root: Path, config: DataConfig) -> Iterator[dict[str, Any]]:
    for image in document["differing"]["listed"][:MAX_IMAGES]:
        yield {**image, **shown(image["path"], root=root, config=config, pixels=THUMBNAIL_PIXELS)}
