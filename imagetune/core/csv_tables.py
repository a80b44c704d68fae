"""CSV tables: written without formulas, and read within bounds, as others may have written them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from imagetune.core.csv_cells import quote_cell, quote_row, unquote_cell, unquote_row
from imagetune.core.files import open_regular_file, replace_atomically

_MAX_CSV_LINE = 1 << 20


def write_csv(path: Path, header: Sequence[object], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV table with a header, atomically; the bytes of paths that are not UTF-8 are kept.

    No cell is a formula to a spreadsheet: see `imagetune.core.csv_cells`.
    """
    with (
        replace_atomically(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        # The csv module ends lines with \r\n on every system unless told otherwise.
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(quote_cell(name) if isinstance(name, str) else name for name in header)
        # A carriage return alone is quoted only where all cells are, and would end the row for every reader.
        careful = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in rows:
            cells = quote_row(header, row)
            (careful if any("\r" in cell for cell in cells if isinstance(cell, str)) else writer).writerow(cells)


def read_csv_rows(path: Path, *, max_rows: int) -> Iterator[list[str]]:
    """Yield the rows of a CSV table as texts, the heading first; bytes that are not UTF-8 become surrogates.

    Cells are as they were before `write_csv` kept spreadsheets from taking them for formulas.

    Raises:
        OSError: As `open_regular_file`.
        ValueError: It is no CSV table, has more rows, or a line of over a megabyte.
    """
    with open_regular_file(path) as content:
        # A path on Linux need not be UTF-8; surrogates bring its bytes through unchanged.
        file = io.TextIOWrapper(content, encoding="utf-8", errors="surrogateescape", newline="")
        # Lines are cut: one without an end would be read into memory as a whole.
        lines = iter(lambda: file.readline(_MAX_CSV_LINE), "")
        try:
            header: list[str] = []
            for number, row in enumerate(csv.reader(lines)):
                if number > max_rows:
                    raise ValueError(f"has more than {max_rows:,} rows")
                if not number:
                    header = [unquote_cell(cell) for cell in row]
                yield unquote_row(header, row) if number else header
        except csv.Error as error:
            raise ValueError(f"is no CSV table: {error}") from error
