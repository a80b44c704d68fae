"""Lines of text: on a terminal broken between words, elsewhere as they are."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from textwrap import wrap

import click

# Where the words after a label such as "verdict" begin.
INDENT = 12
_LEAST = 20


def echo_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output, as wide as the terminal that it is, if it is one."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in lines:
        click.echo(in_width(line, width))


def in_width(line: str, width: int | None) -> str:
    """Return a line broken between words, its later lines below the words after its label.

    Paths and other long words stay whole, so that they can be copied, and so do the indented rows of a table.

    Args:
        line: The line.
        width: Columns of the screen; None for any number.
    """
    if width is None or len(line) <= width or line[:1].isspace():
        return line
    hang = INDENT if line[INDENT - 2 : INDENT].isspace() else 0
    parts = wrap(line[hang:], max(width - hang, _LEAST), break_long_words=False, break_on_hyphens=False)
    return line[:hang] + f"\n{' ' * hang}".join(parts)
