"""Progress of a search on the screen: a live table on a terminal, a line for each trial elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group
from rich.live import Live
from rich.text import Text

from imagetune.cli.render.console import keep_going_without_output
from imagetune.cli.render.lines import make_visible
from imagetune.cli.render.search import (
    STATUS_WORDS,
    format_metric,
    format_setting_cells,
    format_settings,
    format_status_counts,
    name_settings,
)
from imagetune.cli.render.trial_rows import Row, join_parts, lay_out_rows
from imagetune.core.text import format_count, format_duration
from imagetune.recipe.document import NodePath
from imagetune.recipe.metrics import name_metric
from imagetune.search.forecast import seconds_left
from imagetune.search.proposers.bakeoff import select_compared

if TYPE_CHECKING:
    from imagetune.cli.render.progress import Screen
    from imagetune.search.executors.protocol import Task
    from imagetune.search.listeners import SearchPlan
    from imagetune.search.progress import ProgressReader
    from imagetune.search.proposers.finalists import Candidate
    from imagetune.search.records.trial import Trial, TrialResult

# Reading the progress of all trials touches files, so that it is not done at every tick.
_UPDATE_SECONDS = 0.5
_BEST_ROWS = 5
# Blank lines around the trials, and the line of the cursor.
_FRAME_LINES = 3


@dataclass(frozen=True)
class _Running:
    trial: Trial
    began: float
    progress: ProgressReader


class SearchScreen:
    """A search watcher that prints progress to standard error.

    Args:
        refit: Shows the progress of the refit, and has the console.

    Attributes:
        refit: The same.
    """

    def __init__(self, refit: Screen) -> None:
        self.refit = refit
        self._stack = ExitStack()
        self._live: Live | None = None
        self._plan: SearchPlan | None = None
        self._results: list[TrialResult] = []
        self._running: dict[str, _Running] = {}
        self._last_update = 0.0

    @contextmanager
    def shown(self) -> Iterator[SearchScreen]:
        """Show the live table during the block, and restore the terminal, however it ends."""
        with keep_going_without_output(), self._stack:
            yield self

    def say(self, topic: str, text: str, /) -> None:
        """Print a message above the live table."""
        self.refit.say(topic, text)

    def search_started(self, plan: SearchPlan) -> None:
        """Print the plan of the search, and start the live table."""
        self._plan = plan
        self._results = [*plan.known]
        self.say("search", _describe_plan(plan))
        if plan.known:
            self.say("resumed", f"{format_status_counts(self._results)} in earlier sessions; their results are kept")
        console = self.refit.console
        if console.is_terminal:
            # Drawn by `tick`, after the progress was read: a thread of rich's own would draw the same table again.
            live = Live(console=console, auto_refresh=False, transient=True, vertical_overflow="crop")
            self._live = self._stack.enter_context(live)
            # A second Ctrl-C ends the process at once: the cursor must not stay hidden.
            console.show_cursor(True)

    def trial_started(self, trial: Trial, task: Task) -> None:
        """Add a trial to the live table, or print that it started."""
        from imagetune.search.progress import ProgressReader

        plan = self._planned()
        progress = ProgressReader(task, plan.recipe.search.objective)
        self._running[trial.trial_id] = _Running(trial, time.monotonic(), progress)
        if self._live is None:
            settings = format_settings(trial.values, name_settings(plan.recipe, plan.paths))
            self.say(f"trial {trial.trial_id}", f"started: {settings}")
        self._show()

    def trial_ended(self, result: TrialResult, task: Task | None) -> None:
        """Print how a trial ended, and take it from the running ones."""
        del task
        self._running.pop(result.trial.trial_id, None)
        self._results.append(result)
        if self._live is None:
            self.say(f"trial {result.trial.trial_id}", f"{_describe_end(result)}; {'; '.join(self._summarize())}")
        # The table shows the best and the running trials; a failure would go by unseen.
        elif result.status == "failed":
            self.say(f"trial {result.trial.trial_id}", _describe_end(result))
        self._show()

    def tick(self) -> None:
        """Update the live table, at most twice a second."""
        if self._live is not None and time.monotonic() - self._last_update > _UPDATE_SECONDS:
            self._show()

    def refit_started(self, winner: Candidate) -> None:
        """End the live table, and start the progress bar of the refit."""
        # The table ends before the bar begins: two live displays would draw over each other.
        self._stack.close()
        self._live = None
        self.say(
            "winner", f"trial {winner.trial.trial_id}, {format_metric(winner, self._planned().recipe.search.objective)}"
        )
        self._stack.enter_context(self.refit.shown())

    def _planned(self) -> SearchPlan:
        if self._plan is None:
            raise RuntimeError("the search hasn't started")
        return self._plan

    def _show(self) -> None:
        if self._live is None:
            return
        self._last_update = time.monotonic()
        plan = self._planned()
        names, width = name_settings(plan.recipe, plan.paths), self.refit.console.width
        heads = ("trial", "state", name_metric(plan.recipe.search.objective), "time")
        running = [self._running_row(one, names) for one in self._running.values()]
        best = [_build_best_row(result, names) for result in self._best()]
        summary = join_parts(self._summarize(), " · ", width)
        room = self.refit.console.height - len(summary) - _FRAME_LINES
        lines: list[tuple[str, str]] = []
        for count in range(len(best), -1, -1):  # as many of the best as the screen is high enough for
            rows = [*running, *best[:count]]
            lines = lay_out_rows(rows, heads, list(names.values()), width=width) if rows else []
            if len(lines) <= room:
                break
        shown = [_cut(line, style) for line, style in lines[: max(0, room)]]
        footer = [_cut(line, "bold") for line in summary]
        self._live.update(Group(Text(""), *shown, Text(""), *footer), refresh=True)

    def _running_row(self, running: _Running, names: Mapping[NodePath, str]) -> Row:
        progress = running.progress.read()
        state = f"{progress.stage} {progress.epoch}/{progress.epochs}" if progress.stage else "starts"
        metric = "" if progress.objective is None else f"{progress.objective:.4f}"
        took = format_duration(time.monotonic() - running.began)
        return Row(
            (running.trial.trial_id, state, metric, took), format_setting_cells(running.trial.values, names), "cyan"
        )

    def _best(self) -> list[TrialResult]:
        sign = 1.0 if self._planned().direction == "min" else -1.0
        judged = select_compared(self._results, self._planned().recipe.search.algorithm)
        ended = [result for result in judged if result.objective is not None and result.status != "repeated"]
        return sorted(ended, key=lambda result: sign * (result.objective or 0.0))[:_BEST_ROWS]

    def _summarize(self) -> list[str]:
        """Return the summary of the search so far: counts, best metric, time and budget left."""
        plan = self._planned()
        of = f" of {plan.expected.trials + plan.expected.finals}"
        parts = [
            f"{len(self._results)}{of} ended: {format_status_counts(self._results)}"
            if self._results
            else f"0{of} ended"
        ]
        if self._live is not None and self._running:
            parts.append(f"{len(self._running)} running")
        if best := self._best():
            objective = name_metric(plan.recipe.search.objective)
            parts.append(f"best {objective} {best[0].objective:.4f}, trial {best[0].trial.trial_id}")
        budget = plan.budget.seconds_left()
        running = {name: (one.trial, time.monotonic() - one.began) for name, one in self._running.items()}
        left = seconds_left(plan.expected, self._results, running, slots=plan.slots, budget_seconds=budget)
        if left is not None:
            parts.append(f"about {format_duration(left)} left")
        if budget is not None:
            parts.append(f"budget {format_duration(budget)}" if budget > 0 else "budget used up")
        return parts


def _cut(line: str, style: str) -> Text:
    return Text(make_visible(line), style, overflow="ellipsis", no_wrap=True)


def _build_best_row(result: TrialResult, names: Mapping[NodePath, str]) -> Row:
    cells = (
        result.trial.trial_id,
        STATUS_WORDS[result.status],
        f"{result.objective:.4f}",
        format_duration(result.seconds),
    )
    return Row(cells, format_setting_cells(result.trial.values, names))


def _describe_end(result: TrialResult) -> str:
    if result.objective is None:
        return f"failed: {result.error}"
    epoch = f" at epoch {result.best_epoch}" if result.best_epoch is not None else ""
    return f"{STATUS_WORDS[result.status]}: {result.objective:.4f}{epoch}, {format_duration(result.seconds)}"


def _describe_plan(plan: SearchPlan) -> str:
    search, expected = plan.recipe.search, plan.expected
    finals = f" and {expected.finals} more of the finalists" if expected.finals else ""
    by = f"by {name_metric(search.objective)} on validation"
    return f"{search.algorithm} {by}, {format_count(expected.trials, 'trial')}{finals}"
