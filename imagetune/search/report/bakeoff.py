"""The bake-off section: the objective of each backbone against its time and size, as plots and a table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import Bbox

from imagetune.reports.style import GRID, INK, MUTED, TRAIN, VAL, Drawing, drawing_style, save_inline_drawing
from imagetune.search.results.bakeoff import BackboneResult, find_deciding_metric, rank_backbones
from imagetune.search.results.pareto import find_pareto_front
from imagetune.search.results.reader import SearchFiles

_INCHES = (5.2, 3.8)
# With more backbones, only those on the Pareto front are named: names would cover each other.
_NAMED = 14
# Where a name may stand beside its point: offset in points, and how it is aligned.
_SIDES = ((7, 0, "left", "center"), (-7, 0, "right", "center"), (0, 8, "center", "bottom"), (0, -8, "center", "top"))
_FURTHER = tuple(
    (x, y, ha, va) for y in (11, -11, 20, -20) for x, ha in ((7, "left"), (-7, "right")) for va in ("center",)
)


_Line = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True)
class _Point:
    name: str
    cost: float
    value: float
    low: float
    high: float
    front: bool


def view_bakeoff(search: SearchFiles) -> Mapping[str, Any] | None:
    """Return what the section is drawn from; None for another algorithm, or before a probe has ended."""
    if search.algorithm != "bakeoff":
        return None
    rows = rank_backbones(search.folder, search.results, search.direction)
    good = [row for row in rows if row.probe is not None]
    if not rows:
        return None
    first = good[0].probe if good else None
    devices = sorted({_format_device(row.probe["cost"]) for row in good if row.probe is not None})
    return {
        "objective": search.objective_name,
        "first": first,
        "decides": find_deciding_metric(search.recipe),
        "rows": rows,
        "drawings": _draw_costs(good, search) if good else [],
        "front": [row.name for row in good if row.front],
        "devices": devices,
        "places": sorted({row.result.place for row in good}) if search.recipe.search.executor == "ray" else [],
        "tuned": any(row.fine_tuned or row.tuning_error for row in rows),
        "better": "higher" if search.direction == "max" else "lower",
    }


def _format_device(cost: Mapping[str, Any]) -> str:
    cores = f"{cost['cores']} core{'' if cost['cores'] == 1 else 's'}"
    return cores if cost["device"].startswith("cpu") else f"{cost['device']} beside {cores}"


def _draw_costs(rows: Sequence[BackboneResult], search: SearchFiles) -> list[Drawing]:
    probes = [row.probe or {} for row in rows]
    larger = search.direction == "max"
    costs: Mapping[str, list[float]] = {
        "milliseconds per image, one at a time": [probe["cost"]["milliseconds_one"]["value"] for probe in probes],
        "megabytes of weights": [probe["cost"]["megabytes"] for probe in probes],
    }
    drawings = []
    for across, found in costs.items():
        front = find_pareto_front(
            [probe["value"] for probe in probes], [[cost] for cost in found], larger_is_better=larger
        )
        points = [
            _Point(row.name, cost, probe["value"], *row.interval, on)
            for row, probe, cost, on in zip(rows, probes, found, front, strict=True)
        ]
        drawings.append(_draw_cost(points, across, search.objective_name))
    return drawings


def _draw_cost(points: Sequence[_Point], across: str, objective: str) -> Drawing:
    """Draw the objective of each backbone against one cost, with the Pareto front of both as steps."""
    title = f"{objective} and {across.partition(' ')[0]}"
    with drawing_style():
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        steps = _build_steps(points)
        for start, end in steps:
            axes.plot([start[0], end[0]], [start[1], end[1]], color=VAL, lw=1.2, ls=(0, (4, 2)))
        for point in points:
            colour = VAL if point.front else TRAIN
            axes.plot([point.cost, point.cost], [point.low, point.high], color=colour, lw=1.2, alpha=0.6)
            axes.plot([point.cost], [point.value], "D" if point.front else "o", color=colour, markersize=6.5, zorder=3)
        _frame(axes, [point.cost for point in points], across, f"{objective} of the probe", title)
        _write_names(axes, points, steps, FigureCanvasAgg(figure))
        return save_inline_drawing(figure, title)


def _build_steps(points: Sequence[_Point]) -> list[_Line]:
    """Return the lines of the Pareto front: steps, since up to the next dearer backbone the last one is the best."""
    joined = sorted({(point.cost, point.value) for point in points if point.front})
    steps: list[_Line] = []
    for (cost, value), (next_cost, next_value) in itertools.pairwise(joined):
        steps += [((cost, value), (next_cost, value)), ((next_cost, value), (next_cost, next_value))]
    return steps


def _frame(axes: Axes, costs: Sequence[float], across: str, up: str, title: str) -> None:
    # Backbones differ by factors in time and size; on a linear axis the small ones would lie on each other.
    axes.set_xscale("log")
    # Room for names beside the outermost points.
    axes.set_xlim(min(costs) / 1.8, max(costs) * 1.8)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(7))
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.grid(color=GRID, lw=0.6)
    axes.tick_params(length=3)


def _write_names(axes: Axes, points: Sequence[_Point], steps: Sequence[_Line], canvas: FigureCanvasAgg) -> None:
    """Write each name on the first side of its point where it hits neither a line, a point nor a name before it."""
    # The constrained layout settles positions in pixels with the first drawing only.
    canvas.draw()
    to_pixels = axes.transData.transform
    bars: list[_Line] = [((point.cost, point.low), (point.cost, point.high)) for point in points]
    taken = [Bbox(to_pixels(line)).padded(2) for line in (*steps, *bars)]
    taken += [Bbox(to_pixels([(point.cost, point.value)] * 2)).padded(6) for point in points]
    for point in points:
        if not point.front and len(points) > _NAMED:
            continue
        tried = []
        for place, (across, up, ha, va) in enumerate((*_SIDES, *_FURTHER)):
            style: dict[str, Any] = {"ha": ha, "va": va, "fontsize": 8, "color": MUTED, "parse_math": False}
            at = (point.cost, point.value)
            # matplotlib knows how large a text is only once it is drawn: each place is tried and the rest removed.
            text = axes.annotate(point.name, at, (across, up), textcoords="offset points", **style)
            box = text.get_window_extent(canvas.get_renderer())
            outside = not (axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0)
            tried.append((box.count_overlaps(taken) + 3 * outside, place, text, box))
        _, _, kept, box = min(tried, key=lambda one: one[:2])
        for _, _, text, _ in tried:
            if text is not kept:
                text.remove()
        taken.append(box)
