"""Lines of text with a label, wrapped to the width of a terminal; in files and pipes they stay whole."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from textwrap import wrap
from typing import TYPE_CHECKING

import click

from imagetune.core.text import escape_controls

if TYPE_CHECKING:
    from rich.console import Console

# Columns of a label such as "verdict", with the blank after it.
LABEL_WIDTH = 12
_MIN_WIDTH = 20


def format_line(label: str, text: str) -> str:
    """Return a line of a label and a text, which begins in the same column on all such lines.

    Args:
        label: One or two words; a longer label than the column moves its text to the right.
        text: The text, without a line break.
    """
    return f"{label:<{LABEL_WIDTH - 1}} {text}"


def print_progress(topic: str, text: str, /) -> None:
    """Print a progress message to standard error; standard output stays free for results."""
    echo(format_line(topic, text), err=True)


def print_above_bar(console: Console, topic: str, text: str) -> None:
    """Print a progress message above a bar that is shown on rich's console."""
    line = wrap_line(make_visible(format_line(topic, text)), console.width if console.is_terminal else None)
    # rich would break paths, and would take brackets in them for markup.
    console.print(line, soft_wrap=True, markup=False)


def echo(*lines: object, err: bool = False) -> None:
    """Print lines as they are: the one way out to the screen, on which data must not move the cursor.

    Args:
        lines: The lines; a line break within one is shown as an escape, as are all control characters but tabs.
        err: Whether they go to standard error.
    """
    for line in lines:
        click.echo(make_visible(str(line)), err=err)


def echo_text(text: str) -> None:
    """Print a text of several lines, whose line breaks are its own, such as YAML or JSON."""
    echo(*text.removesuffix("\n").split("\n"))


def make_visible(line: str) -> str:
    """Return a line with its control characters as visible escapes, but for tabs, which separate columns."""
    return "\t".join(map(escape_controls, line.split("\t")))


def screen_width() -> int | None:
    """Return the width of the terminal in columns; None where standard output is a file or a pipe."""
    # In a file or a pipe lines stay whole, for grep and for whoever widens the window.
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def echo_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output, wrapped to the width of the terminal if it is one."""
    width = screen_width()
    for line in lines:
        click.echo(wrap_line(make_visible(line), width))


def wrap_line(line: str, width: int | None) -> str:
    """Return a line wrapped between words to a width, with later lines indented to the text after the label.

    Paths and other long words stay whole, so that they can be copied, and so do the indented rows of a table.

    Args:
        line: The line.
        width: Columns of the screen; None for any number.
    """
    if width is None or len(line) <= width or line[:1].isspace():
        return line
    # A label longer than its column has no blank there: then later lines begin at the left.
    hang = LABEL_WIDTH if line[LABEL_WIDTH - 2 : LABEL_WIDTH].isspace() else 0
    parts = wrap(line[hang:], max(width - hang, _MIN_WIDTH), break_long_words=False, break_on_hyphens=False)
    return line[:hang] + f"\n{' ' * hang}".join(parts)
