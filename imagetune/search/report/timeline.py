"""The timeline of a search: a bar for each trial, in a lane for each place where trials ran."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from imagetune.core.text import format_duration
from imagetune.search.records.trial import TrialResult
from imagetune.search.results.clock import Clock, build_clock
from imagetune.search.results.reader import SearchFiles

_WIDTH, _LEFT, _RIGHT, _TOP = 1000.0, 110.0, 16.0, 8.0
_LANE, _BAR = 22.0, 16.0
_LETTER = 6.2


def view_timeline(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None where no trial ran."""
    ran = [result for result in search.results if result.seconds > 0]
    if not ran:
        return None
    clock = build_clock(ran)
    lanes = _lanes(ran)
    scale = (_WIDTH - _LEFT - _RIGHT) / max(clock.total, 1e-9)
    bars = [
        _bar(search, result, clock, scale, _TOP + number * _LANE)
        for number, (_, lane) in enumerate(lanes)
        for result in lane
    ]
    bottom = _TOP + len(lanes) * _LANE
    busy = sum(result.seconds for result in ran)
    return {
        "width": round(_WIDTH),
        "height": round(bottom + 34),
        "left": _LEFT,
        "bottom": bottom,
        "lanes": [{"name": name[:16], "y": _TOP + number * _LANE} for number, (name, _) in enumerate(lanes)],
        "bars": bars,
        "ticks": [(round(_LEFT + seconds * scale, 1), text) for seconds, text in _ticks(clock.total)],
        "pauses": [round(_LEFT + seconds * scale, 1) for seconds in clock.pauses],
        "busy": format_duration(busy),
        "total": format_duration(clock.total),
        "parallel": busy / max(clock.total, 1e-9),
    }


def get_trial_kind(result: TrialResult) -> str:
    """Return how a trial is shown: its state, or ``final`` for a finalist's other seed that came through."""
    return "final" if result.trial.phase == "final" and result.status != "failed" else result.status


def _lanes(results: Sequence[TrialResult]) -> list[tuple[str, list[TrialResult]]]:
    """Return rows for the trials, so that none overlaps another: the place's name and its trials."""
    lanes: dict[str, list[list[TrialResult]]] = {}
    for result in sorted(results, key=lambda one: one.began):
        rows = lanes.setdefault(result.place, [])
        # Clocks of a trial's process and of the search differ by a moment.
        free = next((row for row in rows if row[-1].began + row[-1].seconds <= result.began + 1.0), None)
        if free is None:
            rows.append([result])
        else:
            free.append(result)
    return [(place if not number else "", row) for place in sorted(lanes) for number, row in enumerate(lanes[place])]


def _bar(search: SearchFiles, result: TrialResult, clock: Clock, scale: float, y: float) -> dict[str, Any]:
    x, end = (_LEFT + clock.seconds(moment) * scale for moment in (result.began, result.began + result.seconds))
    # The shortest trial must still be seen, and pointed at.
    width = max(end - x - 1, 1.5)
    name = result.trial.trial_id
    metric = result.error if result.status == "failed" else f"{search.objective} {search.metric(result.objective)}"
    where = f" on {result.place}" if result.place else ""
    return {
        "x": round(x, 1),
        "y": y + (_LANE - _BAR) / 2,
        "width": round(width, 1),
        "height": _BAR,
        "kind": get_trial_kind(result),
        "name": name if len(name) * _LETTER + 4 <= width else "",
        "trial": name,
        "text": f"trial {name}, {result.status}{where}, {format_duration(result.seconds)}: {metric}",
    }


def _ticks(total: float) -> list[tuple[float, str]]:
    unit, name = (3600.0, "h") if total > 3 * 3600 else (60.0, "min") if total > 180 else (1.0, "s")
    marks = [
        float(mark)
        for mark in MaxNLocator(nbins=8, steps=[1, 2, 5, 10]).tick_values(0, total / unit)
        if 0 <= mark * unit <= total
    ]
    return [(mark * unit, f"{mark:g} {name}") for mark in marks]
