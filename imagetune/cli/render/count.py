"""Progress of a long work on the screen: a bar with the time left on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from imagetune.cli.render.console import keep_going_without_output
from imagetune.cli.render.lines import print_above_bar, print_progress
from imagetune.core.messages import Say
from imagetune.core.text import format_duration

# In a log file: few enough for a work of days, and often enough to see that it goes on.
_LINE_SECONDS = 30.0

Count = Callable[[int, int], None]
"""Called with what is done and what there is in all."""


@contextmanager
def show_count(topic: str, noun: str) -> Iterator[tuple[Say, Count]]:
    """Yield functions that print a message and that show progress, on standard error.

    Args:
        topic: What is done, in one word.
        noun: What is counted, in the plural.
    """
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield print_progress, _build_lines(topic, noun)
        return
    columns = (TextColumn(topic), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with keep_going_without_output(), Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(topic, total=None)

        def say(about: str, text: str, /) -> None:
            print_above_bar(console, about, text)

        yield say, lambda done, count: bar.update(task, completed=done, total=count)


def _build_lines(topic: str, noun: str) -> Count:
    """Return a function that prints a line every half minute with the rate since its first call and the time left."""
    began: tuple[float, int] | None = None
    said = time.monotonic()

    def show(done: int, count: int) -> None:
        nonlocal began, said
        now = time.monotonic()
        began = began or (now, done)
        if now - said < _LINE_SECONDS or done in (began[1], count):
            return
        said = now
        rate = (done - began[1]) / (now - began[0])
        left = format_duration((count - done) / rate)
        print_progress(topic, f"{done:,} of {count:,} {noun}, {rate:.0f} a second, {left} left")

    return show
