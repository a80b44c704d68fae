"""Bounds on what a table may hold, looked at before any of it becomes a Python object."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imagetune.errors import DataError

# Ten million rows take three to four gigabytes, as each is a record with a path and a label.
MAX_ROWS = 10_000_000
MAX_COLUMNS = 10_000
MAX_FILE_BYTES = 2 << 30
# A line, and what a row group holds of one column.
MAX_LINE_BYTES = 4 << 20
MAX_COLUMN_BYTES = 256 << 20
MAX_CELL = 8 << 20
_SEPARATORS = (b",", b";", b"\t", b"|")
_SMALLER = "split it into several tables, or leave out columns"


def require_bounded_csv(table: Path) -> bool:
    """Raise an error where a CSV file is too large, or a line or the number of its cells is; it is read once for that.

    Returns:
        Whether any of its bytes is zero, as in files that are no text, and in UTF-16.

    Raises:
        DataError: It says what is too large.
        OSError: The file can't be read.
    """
    size = table.stat().st_size
    if size > MAX_FILE_BYTES:
        raise _build_error(table, f"has {size / 1e9:.1f} GB; at most {MAX_FILE_BYTES / 1e9:.1f} GB are read")
    lines, has_zeros = 0, False
    with table.open("rb") as file:
        while block := file.read(MAX_LINE_BYTES):
            ends = block.count(b"\n") or block.count(b"\r")
            lines += ends
            has_zeros = has_zeros or b"\0" in block
            if not ends and len(block) == MAX_LINE_BYTES:
                raise _build_error(table, f"has a line of more than {MAX_LINE_BYTES:,} bytes")
            if max(map(block.count, _SEPARATORS)) > MAX_COLUMNS * (ends + 1):
                raise _build_error(table, f"has lines of more than {MAX_COLUMNS:,} cells")
            if lines > MAX_ROWS:
                raise _build_error(table, f"has more than {MAX_ROWS:,} lines")
    return has_zeros


def require_bounded_parquet(table: Path, metadata: Any, wanted: Iterable[int]) -> None:
    """Raise an error where the footer of a Parquet file states too many rows or too large columns.

    Args:
        table: The file.
        metadata: Its ``pyarrow.parquet.FileMetaData``.
        wanted: The numbers of the columns that will be read, from 0, as the footer counts them.

    Raises:
        DataError: It says what is too large.
    """
    if metadata.num_rows > MAX_ROWS:
        raise _build_error(table, f"has {metadata.num_rows:,} rows; at most {MAX_ROWS:,} are read")
    for place in wanted:
        sizes = (metadata.row_group(group).column(place) for group in range(metadata.num_row_groups))
        total = sum(column.total_uncompressed_size for column in sizes)
        if total > MAX_COLUMN_BYTES:
            name = metadata.schema.column(place).path[:80]
            raise _build_error(
                table, f"column {name!r} has {total / 1e6:,.0f} MB, more than {MAX_COLUMN_BYTES >> 20} MB"
            )


def require_columns_bounded(table: Path, count: int) -> None:
    """Raise an error for a table of more columns than one can mean.

    Raises:
        DataError: There are more than 10,000 columns.
    """
    if count > MAX_COLUMNS:
        raise _build_error(table, f"has {count:,} columns; at most {MAX_COLUMNS:,} are read")


def _build_error(table: Path, what: str) -> DataError:
    return DataError(what, where=str(table), hint=_SMALLER)
