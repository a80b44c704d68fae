"""Learning-rate schedule: the learning rate of the head at every step of a run, with warmups and stages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.reports.plots.learning_curves import PANEL_INCHES, format_plain_number, mark_stages
from imagetune.reports.style import GRID, INK, RATE, Drawing, drawing_style, save_inline_drawing
from imagetune.training.optimization.schedules import StageSchedule

TITLE = "Learning rate of the head"
FIGURE_INCHES = (7.4, 4.0)
MAX_POINTS = 400


@dataclass(frozen=True)
class StageLearningRates:
    """The learning rate of the head during a stage, as far as the stage came.

    Attributes:
        name: Name of the stage.
        start: Optimizer steps before the stage.
        end: Optimizer steps after it.
        steps: (n,) float64, some or all steps of the stage, counted from 0 over all stages; with accumulation also the
            passes between them, as fractions.
        rates: (n,) float64, the learning rate at each of them.
        warmup_end: Where the warmup ends on the same axis; ``start`` where there is none.
    """

    name: str
    start: float
    end: float
    steps: NDArray[np.float64]
    rates: NDArray[np.float64]
    warmup_end: float


def compute_stage_learning_rates(
    train: TrainConfig, epochs: Sequence[Mapping[str, Any]]
) -> tuple[StageLearningRates, ...]:
    """Compute the learning rate at each step of the stages that ran.

    An epoch follows its schedule, scaled to meet the learning rate that was recorded at its last step: so a measured
    learning rate (``auto``) and the falls of ``plateau`` are drawn as they were.

    Args:
        train: The resolved recipe's section.
        epochs: Lines of metrics.jsonl.
    """
    stage_of = {stage.name: stage for stage in train.stages}
    accumulation = 1 if train.batch_size == "auto" else train.accumulation
    found, start = [], 0
    for name, lines in groupby(epochs, key=lambda line: str(line.get("stage", ""))):
        ran = [line for line in lines if isinstance(line.get("learning_rate"), (int, float))]
        if name not in stage_of or not ran or ran[-1]["step"] <= start:
            continue
        found.append(_compute_rates(stage_of[name], ran, start, accumulation))
        start = int(ran[-1]["step"])
    return tuple(found)


def plot_schedule(rates: Sequence[StageLearningRates]) -> Figure:
    """Draw the schedule as a figure; ``rates`` has at least one stage."""
    return _figure(rates, FIGURE_INCHES)


def draw_schedule(rates: Sequence[StageLearningRates]) -> Drawing:
    """Draw the schedule for the report, in the size of a learning curve."""
    with drawing_style():
        return save_inline_drawing(_figure(rates, PANEL_INCHES), TITLE)


def _compute_rates(
    stage: StageConfig, lines: Sequence[Mapping[str, Any]], start: int, accumulation: int
) -> StageLearningRates:
    """Compute the learning rates of a stage whose lines count passes from ``start`` on."""
    end = int(lines[-1]["step"])
    updates = (end - start) / accumulation
    shape = StageSchedule(1.0, stage.schedule, steps_per_epoch=updates / len(lines), epochs=stage.epochs)
    passes = np.linspace(start, end - 1, min(end - start, MAX_POINTS)).astype(np.int64)
    # A fall of plateau lies between two epochs: both of its ends are drawn.
    ends = np.array([int(line["step"]) - 1 for line in lines])
    passes = np.unique(np.concatenate([passes, ends, np.minimum(ends + 1, end - 1)]))
    recorded = np.array([line["learning_rate"] for line in lines], dtype=np.float64)
    scales = recorded / [shape.rate_at((last - start) // accumulation) for last in ends]
    shares = [shape.rate_at((one - start) // accumulation) for one in passes]
    return StageLearningRates(
        name=stage.name,
        start=start / accumulation,
        end=end / accumulation,
        steps=passes / accumulation,
        rates=scales[np.searchsorted(ends, passes)] * shares,
        warmup_end=start / accumulation + shape.warmup_steps,
    )


def _figure(rates: Sequence[StageLearningRates], inches: tuple[float, float]) -> Figure:
    figure = Figure(figsize=inches, layout="constrained")
    _draw(figure.subplots(), rates)
    return figure


def _draw(axes: Axes, rates: Sequence[StageLearningRates]) -> None:
    for index, stage in enumerate(rates):
        rising = stage.steps <= stage.warmup_end
        if stage.warmup_end > stage.start:
            # One entry of the legend stands for the warmups of all stages.
            label = None if any(other.warmup_end > other.start for other in rates[:index]) else "warmup"
            axes.plot(stage.steps[rising], stage.rates[rising], color=RATE, dashes=(2, 1), label=label)
        # From the last point of the warmup on, so that the line has no gap.
        first = max(int(rising.sum()) - 1, 0)
        axes.plot(stage.steps[first:], stage.rates[first:], color=RATE)
    _frame(axes, rates)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 1.0), frameon=False, borderpad=0.1, fontsize=9)


def _frame(axes: Axes, rates: Sequence[StageLearningRates]) -> None:
    """Give the panel its scale, title and stages; a log scale where the learning rates of the stages differ widely."""
    peaks = [float(stage.rates.max()) for stage in rates]
    log = max(peaks) > 4 * min(peaks) > 0
    if log:
        axes.set_yscale("log")
        decades = np.log10(max(peaks) / min(float(stage.rates.min()) for stage in rates))
        # Within one or two decades, powers of ten alone would give hardly a tick.
        axes.yaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if decades < 1.5 else (1,)))
        axes.yaxis.set_minor_locator(NullLocator())
        low, high = axes.get_ylim()
        # Room above the curve for the names of the stages, as in the learning curves.
        axes.set_ylim(low, high * (high / low) ** 0.16)
    else:
        axes.set_ylim(0.0, 1.2 * max(peaks))
    axes.yaxis.set_major_formatter(format_plain_number)
    axes.set_xlim(0, rates[-1].end)
    axes.set_title(TITLE + (" (log scale)" if log else ""), loc="left", fontsize=10, fontweight="bold", color=INK)
    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.tick_params(length=3)
    mark_stages(axes, [(stage.name, stage.start, stage.end) for stage in rates])
