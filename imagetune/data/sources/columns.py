"""Columns of a table: which must be there, which are meant where they aren't, and one-hot classes as labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.core.text import format_list, suggest_name
from imagetune.data.sources.image_files import is_image
from imagetune.data.sources.labels import join_labels, require_plain
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.sections.data import DataConfig

# Begin the meaning of the columns of which there are several.
SLICE, ONE_HOT = "slice ", "one-hot "
_YES, _NO = frozenset(("1", "1.0", "true")), frozenset(("0", "0.0", "false"))
# A metadata.csv always has this column: no recipe key names it.
_FIXED_PATH = "file_name"


def require_columns(
    header: Sequence[str], columns: Mapping[str, str], table: Path, *, rows: Sequence[Sequence[str]] = ()
) -> None:
    """Raise an error where a column is missing, or where two have the name of one that is read.

    Args:
        header: The column names of the table.
        columns: The column names to read, by their meaning.
        table: The table.
        rows: Its first rows, which may show what is meant.

    Raises:
        DataError: It names the columns that there are, and what to do.
    """
    for key, name in columns.items():
        if header.count(name) > 1:
            what = f"has {header.count(name)} columns {name!r}, and it is unclear which is meant"
            raise DataError(what, where=str(table), hint="give the others another name")
        if name not in header and key not in ("split", "group"):
            what = f"has no column {name!r}; its columns are {format_list(map(repr, header), most=20)}"
            if any(map(is_image, header)):
                what = f"has no header: its first line is {format_list(map(repr, header), most=20)}"
            raise DataError(what, where=str(table), hint=_suggest_column(key, name, header, rows))


def _suggest_column(key: str, name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if any(map(is_image, header)):
        return "add a first line with the names of the columns, such as path,label"
    if key == "label" and (classes := _find_one_hot_columns(header, rows)):
        return f"its columns of 0 and 1 look like a class each: set data.columns.one_hot: [{', '.join(classes)}]"
    kind = next((prefix for prefix in (SLICE, ONE_HOT) if key.startswith(prefix)), "")
    meant = {SLICE: "slices", ONE_HOT: "one_hot"}.get(kind, key)
    key_hint = "" if name == _FIXED_PATH else f"set data.columns.{meant} to the column's name"
    return f"{suggest_name(name, header)} {key_hint}".strip()


def _find_one_hot_columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the columns that hold nothing but 0 and 1 in the first rows; empty for fewer than two."""
    whole = [row for row in rows if len(row) == len(header)]
    columns = zip(header, zip(*whole, strict=True), strict=False)
    found = [name for name, cells in columns if {cell.strip().casefold() for cell in cells} <= _YES | _NO]
    return found if len(found) > 1 else []


def read_one_hot(
    columns: Mapping[str, Sequence[str | None]], lines: Sequence[int], word: str, table: Path, config: DataConfig
) -> Iterator[str]:
    """Yield the label of each row from columns of 0 and 1, one a class.

    Args:
        columns: The cells by class.
        lines: Where each row stands in the file.
        word: What ``lines`` counts.
        table: The table.
        config: ``task`` and ``label_separator`` are used.

    Raises:
        DataError: A cell is neither 0 nor 1, or an image of a single-label task has no class or several.
    """
    classes, several = tuple(columns), config.task == "multi_label"
    for name in classes if several else ():
        require_plain(name, config.label_separator, where=str(table))
    # Of a million rows few are different.
    known: dict[tuple[str | None, ...], str] = {}
    for line, row in zip(lines, zip(*columns.values(), strict=True), strict=True):
        label = known.get(row)
        if label is None:
            chosen = [name for name, cell in zip(classes, row, strict=True) if _is_yes(cell, name, line, word, table)]
            if not several and len(chosen) != 1:
                what = f"{word} {line} has {len(chosen) or 'no'} classes of data.columns.one_hot; expected exactly one"
                raise DataError(what, where=str(table), hint="correct it, or set data.task: multi_label")
            label = known[row] = join_labels(chosen, config.label_separator)
        yield label


def _is_yes(cell: str | None, name: str, line: int, word: str, table: Path) -> bool:
    text = (cell or "").strip().casefold()
    if text not in _YES | _NO:
        what = f"{word} {line} has {cell or ''!r} in the column {name!r} of data.columns.one_hot; expected 0 or 1"
        raise DataError(what, where=str(table))
    return text in _YES
