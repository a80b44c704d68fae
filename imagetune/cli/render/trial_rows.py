"""Trials as rows of a table: their settings beside each other where there is room, else below."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

from imagetune.cli.render.tables import GAP, format_row

_WORDS = re.compile(r"[._\s]+")
# On a narrower screen lines are cut by the terminal instead of holding a word each.
_MIN_WIDTH = 20


@dataclass(frozen=True)
class Row:
    """The row of a trial.

    Attributes:
        cells: The cells that all rows have, the trial's name first.
        settings: The text of each setting; empty where it isn't in force.
        style: The style of rich for the row.
    """

    cells: tuple[str, ...]
    settings: tuple[str, ...]
    style: str = ""


def lay_out_rows(
    rows: Sequence[Row], heads: Sequence[str], names: Sequence[str], *, width: int | None
) -> list[tuple[str, str]]:
    """Return the lines of a table of trials with their styles: the heads, then each row.

    Args:
        rows: The rows of the trials.
        heads: The heads of the cells.
        names: The names of the settings; as heads they are broken into words below each other.
        width: Columns of the screen; None for any number.
    """
    table = [(*row.cells, *row.settings) for row in rows]
    stacks = [*([head] for head in heads), *(_stacked(name, column) for name, column in _columns(names, rows))]
    widths = [
        max(len(text) for text in (*stack, *(line[place] for line in table))) for place, stack in enumerate(stacks)
    ]
    if width is None or sum(widths) + len(GAP) * (len(widths) - 1) <= width:
        height = max(map(len, stacks))
        # Blanks above and not below, so that each head stands next to its column.
        low = [[""] * (height - len(stack)) + stack for stack in stacks]
        titles = [(_line([stack[at] for stack in low], widths), "dim") for at in range(height)]
        return [*titles, *((_line(line, widths), row.style) for line, row in zip(table, rows, strict=True))]
    lines = [(_line(heads, widths), "dim")]
    for row in rows:
        lines.append((_line(row.cells, widths), row.style))
        pairs = [f"{name} {value}" for name, value in zip(names, row.settings, strict=True) if value]
        lines += [(f"    {part}", row.style or "dim") for part in join_parts(pairs, ", ", max(_MIN_WIDTH, width - 4))]
    return lines


def join_parts(parts: Sequence[str], between: str, width: int) -> list[str]:
    """Return parts joined into as few lines as they fit in, none of them broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(between) + len(part) <= width:
            lines[-1] += f"{between}{part}"
        else:
            lines.append(part)
    return lines


def _columns(names: Sequence[str], rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    return [(name, [row.settings[place] for row in rows]) for place, name in enumerate(names)]


def _stacked(name: str, values: Sequence[str]) -> list[str]:
    """Break a name into lines that are hardly wider than the values below them."""
    words = [word for word in _WORDS.split(name) if word]
    room = max(map(len, (*words, *values)), default=1)
    return wrap(" ".join(words), room) or [name]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return format_row(cells, widths, "<" * len(widths))
