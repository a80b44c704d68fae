"""What a test on damaged pictures found, as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from imagetune.cli.options import say
from imagetune.recipe.metrics import METRICS, is_lower_better

_TENTHS = 10


def robustness_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the figures of damaged pictures, the worst damage first.

    Args:
        document: The part ``robustness`` of evaluation.json.
    """
    style = ".4g" if METRICS[document["measure"]].has_units else ".3f"
    measure = document["measure"].replace("_", " ")
    severities = ", ".join(map(str, document["severities"]))
    yield f"damaged     {document['pictures']} test pictures at severity {severities}"
    yield f"  {'as they are':<18} {_figure(document['clean'], style)}  {measure}"
    for row in document["corruptions"]:
        name = row["name"].replace("_", " ")
        word = "added" if is_lower_better(document["measure"]) else "lost"
        yield f"  {name:<18} {_figure(row['mean'], style)}  {word} {row['lost']['value']:{style}}"
    if document["mean_corruption_error"]:
        error = _figure(document["mean_corruption_error"], style)
        yield f"mean error  {error} over the common corruptions, not divided by AlexNet's"
        yield f"  more than as they are: {_figure(document['relative_error'], style)}"


def tell_tenths() -> Callable[[int, int], None]:
    """Return what tells progress, a line for each tenth."""
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        tenth = _TENTHS * done // total
        if tenth > told:
            told = tenth
            say(f"damaged     {done:,} of {total:,} pictures")

    return tell


def _figure(figure: Mapping[str, Any], style: str) -> str:
    interval = f" [{figure['low']:{style}}, {figure['high']:{style}}]" if figure["low"] is not None else ""
    return f"{figure['value']:{style}}{interval}"
