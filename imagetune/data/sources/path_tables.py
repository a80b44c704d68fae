"""Tables of paths to predict: one column of a CSV or Parquet file, some rows at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.data.sources.columns import require_columns
from imagetune.data.sources.csv_files import clean_name, iterate_csv_chunks, read_csv_head
from imagetune.data.sources.parquet_files import iterate_parquet_texts, read_parquet_names
from imagetune.data.sources.table_bounds import require_bounded_csv, require_columns_bounded
from imagetune.data.sources.tables import make_absolute
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.sections.data import ColumnsConfig

_PATH = "path"
_Chunk = tuple[Sequence[int], Sequence[str | None]]


def iterate_table_paths(table: Path, columns: ColumnsConfig | None = None) -> Iterator[list[str]]:
    """Yield the absolute paths in a table's column, some rows at a time; relative ones start at the table's folder.

    Args:
        table: A .csv, .tsv or .parquet file; it needs no other column.
        columns: ``path`` names the column and ``path_format`` completes its cells; the recipe's defaults if None.

    Raises:
        DataError: The column is missing, a cell is empty, or the table is corrupted or has no rows.
    """
    name = clean_name(columns.path if columns else _PATH)
    read, word = (_read_parquet, "row") if table.suffix.lower() == ".parquet" else (_read_csv, "line")
    empty = True
    try:
        for lines, cells in read(table, name):
            for line, cell in zip(lines, cells, strict=True):
                if not (cell or "").strip():
                    hint = "fill it or remove the row"
                    raise DataError(f"{word} {line} has no path", where=str(table), hint=hint)
            empty = False
            yield make_absolute([cell or "" for cell in cells], table.parent, columns.path_format if columns else "{}")
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(table)) from error
    except UnicodeDecodeError as error:
        raise DataError("has text that is not UTF-8", where=str(table)) from error
    if empty:
        raise DataError("has a header but no rows", where=str(table))


def _read_csv(table: Path, name: str) -> Iterator[_Chunk]:
    require_bounded_csv(table)
    head = read_csv_head(table, [name])
    require_columns_bounded(table, len(head.names))
    headless = head.headless if name == _PATH else None
    if headless is None:
        require_columns(head.names, {_PATH: name}, table, rows=head.rows)
    wanted = {_PATH: headless[0] if headless else head.names.index(name)}
    chunks = iterate_csv_chunks(table, wanted, head.names, headless=headless is not None, left_out=Counter())
    yield from ((lines, cells[_PATH]) for lines, cells in chunks)


def _read_parquet(table: Path, name: str) -> Iterator[_Chunk]:
    names = read_parquet_names(table)
    require_columns(tuple(map(clean_name, names)), {_PATH: name}, table)
    first = 1
    for cells in iterate_parquet_texts(table, next(each for each in names if clean_name(each) == name)):
        yield range(first, first + len(cells)), cells
        first += len(cells)
