"""The comparison of runs as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from imagetune.data.sources.labels import build_label_rule
from imagetune.evaluation.comparison.document import format_difference, round_up
from imagetune.recipe.metrics import METRICS
from imagetune.recipe.sections.data import DataConfig
from imagetune.reports.page import html_environment, write_page
from imagetune.reports.thumbnails import view_thumbnail

THUMBNAIL_PIXELS = 176
MAX_IMAGES = 36
MAX_PATHS = 1000
# Rows of classes on the whole page, shared by all pairs: with many runs the page would grow with their square.
MAX_CLASSES = 2000


def write_comparison(document: Mapping[str, Any], path: Path, *, root: Path, config: DataConfig) -> Path:
    """Write a comparison as one HTML page, and return its path.

    Args:
        document: From `comparison_document`.
        path: The file; one that is there is replaced.
        root: The folder at which relative paths of images start.
        config: How the images are read.

    Raises:
        ResourceError: It can't be written.
    """
    return write_page(path, render_comparison(document, root=root, config=config))


def render_comparison(document: Mapping[str, Any], *, root: Path, config: DataConfig) -> str:
    """Return the page of a comparison; the arguments are those of `write_comparison`."""
    metric = document["metric"]
    pairs = [_view_pair(document, pair) for pair in document["pairs"]]
    return (
        html_environment()
        .get_template("comparison.html.jinja")
        .render(
            document=document,
            metrics=METRICS,
            metric=metric,
            confidence=100 * document["confidence"],
            pairs=pairs,
            matrix=list(_build_matrix(document)),
            images=list(_view_images(document, root, config)),
            others=document["differing"]["listed"][MAX_IMAGES:][:MAX_PATHS],
            format_label=build_label_rule(config).describe,
        )
    )


def _view_pair(document: Mapping[str, Any], pair: Mapping[str, Any]) -> dict[str, Any]:
    """Return a pair with the places of its intervals in plots, and its power in words."""
    # Shares have one scale, so that their bars can be compared; metrics in units have one each.
    shares = [metric["difference"] for name, metric in pair["metrics"].items() if METRICS[name].is_share]
    reach = _compute_reach(shares)
    metrics = {
        name: {
            **metric,
            "bar": _place_interval(
                metric["difference"], reach if METRICS[name].is_share else _compute_reach([metric["difference"]])
            ),
        }
        for name, metric in pair["metrics"].items()
    }
    classes = _compute_reach([found["difference"] for found in pair["per_class"]])
    per_class = [{**found, "bar": _place_interval(found["difference"], classes)} for found in pair["per_class"]]
    # Ranges of numbers stay in their order, low to high.
    if document["task"] != "regression":
        per_class.sort(key=lambda found: found["p_value"])
    most = max(5, MAX_CLASSES // len(document["pairs"]))
    left_out = max(0, len(per_class) - most)
    return {
        **pair,
        "metrics": metrics,
        "per_class": per_class[:most],
        "classes_left_out": left_out,
        "power_text": _describe_power(document, pair),
    }


def _describe_power(document: Mapping[str, Any], pair: Mapping[str, Any]) -> str:
    metric, power, sentences = document["metric"], pair["power"], []
    unit = " points" if METRICS[metric].is_share else ""
    if power["min_detectable_difference"] is not None:
        sentences.append(
            f"With {document['images']:,} test images, the minimum detectable difference of "
            f"{METRICS[metric].in_words} is "
            f"{format_difference(power['min_detectable_difference'], metric)}{unit} (power 80%)."
        )
    if power["images_needed"] is not None:
        needed = round_up(power["images_needed"])
        sentences.append(f"To detect the observed difference with that power takes about {needed:,} images.")
    return " ".join(sentences)


def _compute_reach(differences: list[dict[str, Any]]) -> float:
    """Return the largest distance from 0 of any interval end."""
    ends = [abs(found[end]) for found in differences for end in ("low", "value", "high") if found[end] is not None]
    return max(ends, default=0.0)


def _place_interval(difference: Mapping[str, Any], reach: float) -> dict[str, float] | None:
    """Return where an interval lies in a plot whose middle is 0, in percent."""
    value, low, high = (difference[end] for end in ("value", "low", "high"))
    if not reach or value is None or low is None or high is None:
        return None
    # 48, not 50: a dot at the end of the plot would be cut off.
    left, dot, right = (50 + 48 * end / reach for end in (low, value, high))
    # A shorter bar couldn't be seen.
    return {"left": left, "width": max(right - left, 0.5), "dot": dot}


def _build_matrix(document: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any] | None]]]:
    """Yield each run with its differences from all runs in the deciding metric."""
    metric, keys = document["metric"], [run["key"] for run in document["runs"]]
    found = {(pair["first"], pair["second"]): pair for pair in document["pairs"]}
    for row in keys:
        cells: list[dict[str, Any] | None] = []
        for column in keys:
            pair = found.get((row, column)) or found.get((column, row))
            if pair is None:
                cells.append(None)
                continue
            # Each pair is listed once; the cell across the diagonal shows it from the other run's side.
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


def _view_images(document: Mapping[str, Any], root: Path, config: DataConfig) -> Iterator[dict[str, Any]]:
    for image in document["differing"]["listed"][:MAX_IMAGES]:
        yield {**image, **view_thumbnail(image["path"], root=root, config=config, pixels=THUMBNAIL_PIXELS)}
