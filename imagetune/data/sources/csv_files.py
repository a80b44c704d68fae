"""CSV files as columns of text: encoding, separator, header and rows, read in one way whatever the file's size.

What spreadsheets and other programs add is recognised where it is certain: byte-order marks, UTF-16, a first line
``sep=;``, blank lines, lines of separators alone, comments, and a file of paths and labels without a header.
"""

from __future__ import annotations

import csv
import unicodedata
from codecs import BOM_UTF16_BE, BOM_UTF16_LE, BOM_UTF32_BE, BOM_UTF32_LE
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from imagetune.core.csv_cells import unquote_cell
from imagetune.core.text import format_count
from imagetune.data.findings import CODES, Finding
from imagetune.data.sources.image_files import is_image
from imagetune.data.sources.table_bounds import MAX_CELL
from imagetune.errors import DataError

if TYPE_CHECKING:
    from _csv import Reader

# UTF-32 comes first, as its mark for little-endian begins with that of UTF-16.
_MARKS = {BOM_UTF32_LE: "utf-32", BOM_UTF32_BE: "utf-32", BOM_UTF16_LE: "utf-16", BOM_UTF16_BE: "utf-16"}
_SEPARATORS = ",;\t|"
_COMMENT = "#"
_SHOWN_ROWS = 20
# Small enough that Python's garbage collector never looks at them: with 1,024 rows it takes half of the time.
_CHUNK = 256
# How lines that may hold no row begin.
_SUSPICIOUS = ("", _COMMENT, " ")
# Of a million labels or groups few are different, and sharing them saves memory; paths are all different.
_MAX_SHARED = 20_000


@dataclass(frozen=True)
class CsvHead:
    """Beginning of a CSV file, as far as it says how to read the rest.

    Attributes:
        names: The cells of the first row, without blanks around them, in Unicode's normal form C.
        rows: The first rows below it.
        headless: The columns of path and label, from 0, of a file that begins with a row of data; None for others.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    headless: tuple[int, int] | None


@dataclass(frozen=True)
class CsvColumns:
    """Columns of a CSV file.

    Attributes:
        cells: The text of every row, by column name.
        lines: The line of the file that each row ends in, from 1.
        findings: A note on lines that were left out.
    """

    cells: dict[str, list[str | None]]
    lines: list[int]
    findings: tuple[Finding, ...]


def read_csv_head(table: Path, wanted: Sequence[str]) -> CsvHead:
    """Return the beginning of a CSV file.

    Args:
        table: The file.
        wanted: The column names that are looked for; they decide between possible separators.

    Raises:
        DataError: The file is empty, or not in UTF-8, UTF-16 or UTF-32.
    """
    with _open_rows(table, wanted) as (reader, _, _):
        first, *rows = (tuple(row) for row in islice(reader, 1 + _SHOWN_ROWS))
    names = tuple(map(clean_name, first))
    return CsvHead(names, tuple(rows), None if set(wanted) & set(names) else _find_headless_columns(names))


def read_csv_columns(table: Path, wanted: dict[str, int], names: Sequence[str], *, headless: bool) -> CsvColumns:
    """Return columns of a CSV file; memory grows with the columns that are wanted alone.

    Args:
        table: The file.
        wanted: The number of each column to read, from 0, by its name.
        names: The cells of the first row, from `read_csv_head`.
        headless: Whether the first row is data.

    Raises:
        DataError: A row has more or fewer cells than the first one, or a quote isn't closed.
    """
    columns: dict[str, list[str | None]] = {name: [] for name in wanted}
    shared: dict[str, dict[str, str]] = {name: {} for name in wanted}
    lines: list[int] = []
    left_out: Counter[str] = Counter()
    for chunk_lines, chunk in iterate_csv_chunks(table, wanted, names, headless=headless, left_out=left_out):
        lines += chunk_lines
        for name, cells in chunk.items():
            known = shared[name]
            columns[name] += map(known.setdefault, cells, cells) if len(known) < _MAX_SHARED else cells
    return CsvColumns(columns, lines, tuple(_describe_left_out(left_out)))


def iterate_csv_chunks(
    table: Path, wanted: dict[str, int], names: Sequence[str], *, headless: bool, left_out: Counter[str]
) -> Iterator[tuple[list[int], dict[str, list[str]]]]:
    """Yield the lines and the cells by column name of a few hundred rows at a time, so that memory does not grow.

    Args:
        table: The file.
        wanted: As for `read_csv_columns`.
        names: As for `read_csv_columns`.
        headless: Whether the first row is data.
        left_out: Counts the lines that hold no row, by their kind.

    Raises:
        DataError: As for `read_csv_columns`.
    """
    with _open_rows(table, names) as (reader, before, commented):
        if not headless:
            next(reader)
        end = reader.line_num
        # Many rows at a time: what looks at each row alone takes four times as long as the reader itself.
        while rows := list(islice(reader, _CHUNK)):
            ends = _count_lines(rows, end, reader.line_num)
            end = reader.line_num
            if set(map(len, rows)) != {len(names)} or any(row[0][:1] in _SUSPICIOUS for row in rows):
                ends, rows = _choose_rows(rows, ends, names, commented, left_out, where=str(table), before=before)
            # A table of ours may be a source: what kept its cells from being formulas is taken away again.
            yield (
                [before + line for line in ends],
                {
                    name: [unquote_cell(cell) if cell[:1] == "'" else cell for cell in (row[place] for row in rows)]
                    for name, place in wanted.items()
                },
            )


def _count_lines(rows: Sequence[Sequence[str]], start: int, end: int) -> Sequence[int]:
    """Return the line that each row ends in."""
    if end - start == len(rows):
        return range(start + 1, end + 1)
    breaks = (sum(map(_count_breaks, row)) for row in rows)
    return list(accumulate((1 + count for count in breaks), initial=start))[1:]


def _count_breaks(cell: str) -> int:
    return cell.count("\n") + cell.count("\r") - cell.count("\r\n")


def _choose_rows(
    rows: Sequence[list[str]],
    ends: Sequence[int],
    names: Sequence[str],
    commented: bool,
    left_out: Counter[str],
    *,
    where: str,
    before: int,
) -> tuple[list[int], list[list[str]]]:
    """Return what of the lines is rows, and count the others.

    Raises:
        DataError: A row has too few or too many cells.
    """
    chosen = []
    for row, line in zip(rows, ends, strict=True):
        if kind := _find_kind_of_no_row(row, names, commented):
            left_out[kind] += 1
            continue
        # Empty cells at the end don't count.
        if len(row) < len(names) or any(cell.strip() for cell in row[len(names) :]):
            what = f"line {before + line} has {format_count(len(row), 'cell')}, and the first row has {len(names)}"
            raise DataError(what, where=where, hint="write cells that contain the separator in double quotes")
        chosen.append((line, row))
    return [line for line, _ in chosen], [row for _, row in chosen]


def clean_name(name: str) -> str:
    """Return a column's name without blanks around it, in Unicode's normal form C."""
    return unicodedata.normalize("NFC", name.strip())


@contextmanager
def _open_rows(table: Path, wanted: Sequence[str]) -> Iterator[tuple[Reader, int, bool]]:
    """Yield a CSV reader from the first row on, the number of lines before it, and whether they have comments."""
    # Python's limit of 128 KiB is less than a caption may have; without any, an open quote would read on for gigabytes.
    limit = csv.field_size_limit(MAX_CELL)
    begun = None
    try:
        with table.open(encoding=_find_encoding(table), newline="") as file:
            separator, first, before, commented = _read_preamble(file, table)
            separator = separator or _find_separator(first, wanted)
            # Strict: what isn't CSV is an error and no row.
            begun = csv.reader(chain([first], file), delimiter=separator, strict=True)
            yield begun, before, commented
    except UnicodeDecodeError as error:
        raise _build_encoding_error(table) from error
    except csv.Error as error:
        line = "" if begun is None else f"near line {begun.line_num}: "
        hint = "a cell with a double quote or a line end is written in double quotes, and a quote in it twice"
        raise DataError(f"is not a readable table: {line}{error}", where=str(table), hint=hint) from error
    finally:
        csv.field_size_limit(limit)


def _find_encoding(table: Path) -> str:
    with table.open("rb") as file:
        start = file.read(64)
    for mark, encoding in _MARKS.items():
        if start.startswith(mark):
            return encoding
    # Without a mark, Latin letters in UTF-16 have a zero byte each, which no text in UTF-8 has.
    if start[1::2].count(0) > len(start) // 4:
        return "utf-16-le"
    return "utf-16-be" if start[::2].count(0) > len(start) // 4 else "utf-8-sig"


def _read_preamble(file: TextIO, table: Path) -> tuple[str, str, int, bool]:
    """Return the separator where the file names it ("" elsewhere), the first line of data, and what came before it."""
    separator, commented = "", False
    for before, line in enumerate(file):
        text = line.strip()
        if text.casefold().startswith("sep=") and len(text) == len("sep=") + 1:
            separator = text[-1]
        elif line.rstrip("\r\n").casefold() == "sep=\t":
            separator = "\t"
        elif text.startswith(_COMMENT):
            commented = True
        elif text.strip(_SEPARATORS + '" '):
            return separator, line, before, commented
    raise DataError("is empty; expected a header line with the names of the columns", where=str(table))


def _find_separator(first: str, wanted: Sequence[str]) -> str:
    """Return the separator that finds most of the wanted names, else the most columns."""

    def rate(separator: str) -> tuple[int, bool, int]:
        names = [clean_name(cell) for cell in next(csv.reader([first], delimiter=separator))]
        # A bar or a semicolon may also stand between the labels of a cell: without names, two columns are likeliest.
        return len(set(names) & set(wanted)), _find_headless_columns(names) is not None, first.count(separator)

    return max(_SEPARATORS, key=rate)


def _find_headless_columns(cells: Sequence[str]) -> tuple[int, int] | None:
    """Return the columns of path and label of a first row that can only be data: an image's path, and one cell more."""
    images = [place for place, cell in enumerate(cells) if is_image(cell)]
    return (images[0], 1 - images[0]) if len(cells) == 2 and len(images) == 1 else None


def _find_kind_of_no_row(row: Sequence[str], names: Sequence[str], commented: bool) -> str:
    """Return the kind of a line that holds no row: ``empty`` or ``comment``; "" for a row."""
    if not any(cell.strip() for cell in row):
        return "empty"
    # A file may be called #1.png: a comment is alone in its line, or other comments stand above the header.
    is_comment = row[0].lstrip().startswith(_COMMENT) and (commented or len(row) == 1 < len(names))
    return "comment" if is_comment else ""


def _describe_left_out(left_out: Counter[str]) -> Iterator[Finding]:
    if left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
        title = f"{format_count(left_out.total(), 'line')} of the table without a row ({kinds})"
        yield Finding("line-left-out", CODES["line-left-out"].severity, title)


def _build_encoding_error(table: Path) -> DataError:
    """Return the error for a table in an unknown encoding, with the first line that shows it."""
    hint = "save the table as UTF-8; spreadsheets call it 'CSV UTF-8'"
    with table.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                # Nearly every byte is a letter of Windows-1252, so this is a guess that a reader can judge.
                text = line.decode("cp1252", errors="replace").strip()[:80]
                what = f"line {number} is not UTF-8; as Windows-1252 it would be {text!r}"
                return DataError(what, where=str(table), hint=hint)
    return DataError("is not UTF-8 text", where=str(table), hint=hint)
