"""Parquet files as columns of text, read within bounds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imagetune.core.path_names import MAX_PATH_BYTES
from imagetune.core.text import shorten_middle
from imagetune.data.sources.table_bounds import MAX_CELL, require_bounded_parquet, require_columns_bounded
from imagetune.errors import DataError, ImagetuneError

_BUFFER_BYTES = 1 << 20
_CHUNK = 256


def read_parquet_names(table: Path) -> list[str]:
    """Return the names of a Parquet file's columns.

    Raises:
        DataError: The file is corrupted, or has too many columns.
    """
    from pyarrow import parquet

    with _convert_errors(table):
        names: list[str] = parquet.read_schema(table).names
    require_columns_bounded(table, len(names))
    return names


def read_parquet_columns(table: Path, names: Iterable[str]) -> Any:
    """Return columns of a Parquet file as a ``pyarrow.Table``; those of text as dictionaries.

    A dictionary holds each text once, however often it stands in the column: a file of kilobytes may repeat a long one
    a million times.

    Raises:
        DataError: The file is corrupted or too large, or a cell is longer than 8 MB.
    """
    from pyarrow import compute, parquet, types

    chosen = [*dict.fromkeys(names)]
    with _convert_errors(table):
        with parquet.ParquetFile(table) as file:
            leaves = [file.metadata.schema.column(place).path for place in range(file.metadata.num_columns)]
            wanted = [place for place, leaf in enumerate(leaves) if leaf.split(".")[0] in chosen or leaf in chosen]
            require_bounded_parquet(table, file.metadata, wanted)
            texts = [name for name in chosen if types.is_string(file.schema_arrow.field(name).type)]
        found = parquet.read_table(table, columns=chosen, read_dictionary=texts)
        for name in texts:
            lengths = (compute.max(compute.binary_length(chunk.dictionary)).as_py() for chunk in found[name].chunks)
            if any((length or 0) > MAX_CELL for length in lengths):
                raise DataError(f"column {name!r} has a cell of more than {MAX_CELL:,} bytes", where=str(table))
    return found


def iterate_parquet_texts(table: Path, name: str) -> Iterator[list[str | None]]:
    """Yield the cells of a column of text a few hundred at a time, so that memory does not grow with the rows.

    Raises:
        DataError: The file is corrupted or too large, the column is no text, or a cell is longer than a path may be.
    """
    from pyarrow import compute, parquet, types

    with (
        _convert_errors(table),
        # Read through a buffer: by default pyarrow would take a whole row group, which may hold a million rows.
        parquet.ParquetFile(table, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file,
    ):
        leaves = [file.metadata.schema.column(place).path for place in range(file.metadata.num_columns)]
        require_bounded_parquet(table, file.metadata, [place for place, leaf in enumerate(leaves) if leaf == name])
        kind = file.schema_arrow.field(name).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if not any(check(kind) for check in (types.is_string, types.is_large_string, types.is_integer)):
            raise DataError(f"column {name!r} is of type {kind}; expected text or whole numbers", where=str(table))
        for batch in file.iter_batches(batch_size=_CHUNK, columns=[name]):
            # Not as dictionaries, as which a million different paths would be kept.
            cells = batch.column(0).cast("string")
            if (compute.max(compute.binary_length(cells)).as_py() or 0) > MAX_PATH_BYTES:
                what = f"column {name!r} has a cell of more than {MAX_PATH_BYTES:,} bytes, which is no path"
                raise DataError(what, where=str(table))
            yield cells.to_pylist()


def list_dictionary_texts(column: Any) -> list[str | None]:
    """Return the texts of a dictionary column; equal ones are one object."""
    texts: list[str | None] = []
    for chunk in column.chunks:
        values = [*chunk.dictionary.to_pylist(), None]
        # None stands at the end, where the place -1 finds it.
        texts += [values[-1 if place is None else place] for place in chunk.indices.to_pylist()]
    return texts


@contextmanager
def _convert_errors(table: Path) -> Iterator[None]:
    """Convert what pyarrow raises for a corrupted file, which is whatever its parts raise, to a DataError."""
    try:
        yield
    except (ImagetuneError, OSError) as error:
        if isinstance(error, ImagetuneError) or error.errno:
            raise
        raise _build_error(error, table) from error
    except Exception as error:
        raise _build_error(error, table) from error


def _build_error(error: Exception, table: Path) -> DataError:
    reason = shorten_middle(" ".join(str(error).split())) or type(error).__name__
    return DataError(f"is not a readable table: {reason}", where=str(table))
