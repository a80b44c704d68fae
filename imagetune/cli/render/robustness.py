"""The robustness to corruptions as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from imagetune.cli.render.lines import format_line
from imagetune.cli.render.tables import format_table
from imagetune.core.messages import Say

# A test of all corruptions takes minutes: ten messages show that it goes on.
_TENTHS = 10


def format_robustness(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the metric on corrupted images, the worst corruption first.

    Args:
        document: The content of the key ``robustness`` of evaluation.json.
    """
    # The error of a regression has units, so that three decimals may be too few or too many.
    style = ".4g" if document["measure"] == "mae" else ".3f"
    word = "increase" if document["measure"] == "mae" else "decrease"
    severities = ", ".join(map(str, document["severities"]))
    yield format_line("corrupted", f"{document['images']} test images at severity {severities}")
    rows = [("", document["measure"].replace("_", " "), word)]
    rows.append(("uncorrupted", _estimate(document["clean"], style), ""))
    for row in document["corruptions"]:
        change = f"{row['lost']['value']:{style}}"
        rows.append((row["name"].replace("_", " "), _estimate(row["mean"], style), change))
    yield from format_table(rows, align="<<>")
    if document["mean_corruption_error"]:
        error = _estimate(document["mean_corruption_error"], style)
        yield format_line("mean error", f"{error} over the common corruptions, not divided by AlexNet's")
        yield format_line("relative", f"{_estimate(document['relative_error'], style)} more than on uncorrupted images")


def build_tenth_callback(say: Say) -> Callable[[int, int], None]:
    """Return a progress callback that prints a message at each tenth of the images."""
    said = 0

    def progress(done: int, total: int) -> None:
        nonlocal said
        tenth = _TENTHS * done // total
        if tenth > said:
            said = tenth
            say("corrupted", f"{done:,} of {total:,} images")

    return progress


def _estimate(metric: Mapping[str, Any], style: str) -> str:
    interval = f" [{metric['low']:{style}}, {metric['high']:{style}}]" if metric["low"] is not None else ""
    return f"{metric['value']:{style}}{interval}"
