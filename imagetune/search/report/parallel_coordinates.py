"""Parallel coordinates: an axis for each space, the objective as the last one, a line for each setting."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from imagetune.recipe.sections.search import Value
from imagetune.search.records.table import build_values_key
from imagetune.search.results.axes import Axis, format_value
from imagetune.search.results.importance import clip_outliers
from imagetune.search.results.reader import SearchFiles

_TOP, _BOTTOM, _UNUSED, _HEIGHT = 62.0, 330.0, 366.0, 386.0
_LEFT, _RIGHT, _WIDTH, _MIN_GAP = 46.0, 74.0, 1000.0, 96.0
_MAX_TICK_LETTERS = 17
_LETTER, _BOLD_LETTER = 6.6, 8.0
# Where a name may go on in the next line.
_SOFT = "\u200b"
# From so many lines on, those of poor settings fade.
_MANY = 40


def view_parallel_coordinates(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None where no setting has a metric."""
    if not search.axes or not search.candidates or search.algorithm in ("sweep", "bakeoff"):
        return None
    candidates = sorted(search.candidates, key=lambda found: search.sign * found.mean)
    # What is drawn last is on top.
    candidates.sort(key=lambda found: found is search.candidates[0])
    heights, ticks = _objective_axis([found.mean for found in candidates], search.sign)
    across = _across(search.axes)
    lines = [
        {
            "trial": found.trial.trial_id,
            **_line(search, found.trial.values, across, height),
            **_look((place + 1) / len(candidates), len(candidates)),
            "text": _reading(search, found.trial.trial_id, search.metric(found.mean), found.trial.values),
        }
        for place, (found, height) in enumerate(zip(candidates, heights, strict=True))
    ]
    return {
        "width": round(across[-1] + _RIGHT),
        "height": round(_HEIGHT),
        "top": _TOP,
        "bottom": _BOTTOM,
        "unused": _UNUSED if any(line["partly"] for line in lines) else None,
        "axes": [
            *_axes(search, across),
            {"x": across[-1], "label": [search.objective_name], "ticks": ticks, "last": True},
        ],
        "lines": lines,
        "failed": list(_failed(search, across)),
        "winner": search.candidates[0].trial.trial_id,
    }


def _across(axes: Sequence[Axis]) -> list[float]:
    """Return where the axes stand, the objective's the last; the first has room for its ticks beside it."""
    longest = max(len(_tick_text(text, _MAX_TICK_LETTERS)) for _, text in axes[0].ticks())
    left = max(_LEFT, _LETTER * longest + 10)
    gap = max(_MIN_GAP, (_WIDTH - left - _RIGHT) / len(axes))
    return [left + number * gap for number in range(len(axes) + 1)]


def _tick_text(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _look(share: float, count: int) -> dict[str, float]:
    """Return colour (0 to 100) and opacity of a line, given the share of settings that are no better."""
    if count < _MANY:
        return {"rank": round(100 * share), "seen": 1.0}
    return {"rank": round(100 * share**2), "seen": round(0.2 + 0.8 * share**3, 2)}


def _axes(search: SearchFiles, across: Sequence[float]) -> Iterator[dict[str, Any]]:
    gap = across[1] - across[0]
    between, across_labels = int(gap / _LETTER), int(gap / _BOLD_LETTER)
    for axis, x in zip(search.axes, across, strict=False):
        most = _MAX_TICK_LETTERS if x == across[0] else min(_MAX_TICK_LETTERS, between)
        ticks = [(_height(place), _tick_text(text, most)) for place, text in axis.ticks()]
        # The ticks of a choice are its values: none of them can be left out.
        if len(ticks) > 1 and not axis.is_choice:
            ticks = _apart(ticks)
        yield {
            "x": x,
            "label": _wrapped(search.short[axis.name], across_labels),
            "title": axis.name,
            "ticks": ticks,
            "last": False,
        }


def _apart(ticks: list[tuple[float, str]]) -> list[tuple[float, str]]:
    """Drop inner ticks that would touch another."""
    kept = [ticks[0]]
    for tick in ticks[1:-1]:
        if kept[-1][0] - tick[0] > 16 and tick[0] - ticks[-1][0] > 16:
            kept.append(tick)
    return [*kept, ticks[-1]]


def _wrapped(name: str, width: int) -> list[str]:
    """Break a name into at most three lines, after dots and underscores and before capitals where that is possible."""
    words = re.sub(r"(?<=[._])|(?<=[a-z])(?=[A-Z])", f"{_SOFT} ", name)
    lines = textwrap.wrap(words, width + 1, break_long_words=True)
    joined = [line.replace(f"{_SOFT} ", "").replace(_SOFT, "") for line in lines]
    return joined if len(joined) <= 3 else [*joined[:2], joined[2][: width - 1] + "…"]


def _line(
    search: SearchFiles, values: Mapping[Any, Value], across: Sequence[float], height: float | None
) -> dict[str, Any]:
    """Return the points of a setting; without a height the line ends before the objective."""
    settings = search.settings(values)
    heights = [_of(axis, settings) for axis in search.axes]
    partly = any(found is None for found in heights)
    points = [_UNUSED if found is None else _height(found) for found in heights]
    if height is not None:
        points.append(height)
    path = "M" + "L".join(f"{x:.0f} {y:.1f}" for x, y in zip(across, points, strict=False))
    return {"path": path, "heights": " ".join(f"{y:.1f}" for y in points), "partly": partly}


def _of(axis: Axis, settings: Mapping[str, Value]) -> float | None:
    return axis.place(settings[axis.name]) if axis.name in settings else None


def _height(place: float) -> float:
    return round(_BOTTOM - place * (_BOTTOM - _TOP), 1)


def _objective_axis(metrics: Sequence[float], sign: float) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the height of each metric, better ones higher up, and ticks; far outliers lie at the end."""
    # One diverged loss would press all other lines together at one end.
    values: NDArray[np.float64] = clip_outliers(np.array(metrics, dtype=np.float64))
    low, high = float(values.min()), float(values.max())
    if high == low:
        return [_height(0.5)] * len(metrics), [(_height(0.5), format_value(low))]
    marks = [float(mark) for mark in MaxNLocator(nbins=6).tick_values(low, high) if low <= mark <= high]

    def place(value: float) -> float:
        share = (value - low) / (high - low)
        return _height(share if sign > 0 else 1 - share)

    return [place(float(value)) for value in values], [(place(mark), f"{mark:.6g}") for mark in marks]


def _failed(search: SearchFiles, across: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Yield the settings that only failed."""
    good = {build_values_key(found.trial.values) for found in search.candidates}
    seen: set[str] = set()
    for result in search.results:
        key = build_values_key(result.trial.values)
        # A setting that failed with one seed and has a metric with another is a line already.
        if result.status == "failed" and key not in good | seen:
            seen.add(key)
            text = _reading(search, result.trial.trial_id, "failed", result.trial.values)
            yield {"trial": result.trial.trial_id, **_line(search, result.trial.values, across, None), "text": text}


def _reading(search: SearchFiles, trial_id: str, metric: str, values: Mapping[Any, Value]) -> str:
    told = ", ".join(
        f"{search.short[name]} {format_value(value)}"
        for name, value in search.settings(values).items()
        if name in search.short
    )
    return f"trial {trial_id}: {metric}; {told}"
