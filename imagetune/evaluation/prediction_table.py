"""Predictions for unlabelled images as rows for other programs: CSV, JSON lines and Parquet, written a batch at a time.

CSV and JSON lines are appended to. A Parquet file can't be: its rows are kept as an Arrow stream, which can, and become
row groups at the end.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imagetune.core.csv_cells import quote_cell, quote_row
from imagetune.core.path_names import format_path
from imagetune.core.stopping import check_stop
from imagetune.data.sources.labels import name_class_column
from imagetune.evaluation.image_predictions import ImagePrediction
from imagetune.model.loaded import LoadedModel

TableFormat = Literal["csv", "jsonl", "parquet"]
# Not a comma, which separates the columns.
SET_SEPARATOR = ";"
_OPTIONAL = ("value", "prediction_set", "interval", "out_of_distribution", "out_of_distribution_score")
# Rows of a row group of Parquet, fewer where there are thousands of columns: one is in memory at a time.
_GROUP_ROWS, _GROUP_CELLS = 1 << 16, 1 << 22


@dataclass(frozen=True)
class TableColumns:
    """Which columns a table of predictions has.

    Attributes:
        classes: Names of the columns of probabilities, in the order of the model's outputs; empty without them.
        sets: The conformal prediction set, or interval, or neither.
        value: Whether a regression's number is a column of its own, beside its text.
        out_of_distribution: Whether flag and score are columns.
    """

    classes: tuple[str, ...] = ()
    sets: Literal["sets", "intervals", ""] = ""
    value: bool = False
    out_of_distribution: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table: its name, its type in Parquet, and the function to a prediction's value; None is empty."""

    name: str
    kind: str
    get: Callable[[ImagePrediction], Any]


def choose_columns(
    loaded: LoadedModel, kind: TableFormat, *, probabilities: bool, sets: bool, out_of_distribution: bool
) -> TableColumns:
    """Return the columns of a table of a model's predictions.

    Args:
        loaded: The model.
        kind: The table's format; only Parquet has numbers as numbers.
        probabilities: Whether a column for each class is wanted.
        sets: Whether prediction sets or intervals are.
        out_of_distribution: Whether the flag and score of out-of-distribution images are.
    """
    number = loaded.task == "regression"
    return TableColumns(
        classes=loaded.class_names if probabilities and not number else (),
        sets="" if not sets else "intervals" if number else "sets",
        value=number and kind == "parquet",
        out_of_distribution=out_of_distribution,
    )


def list_columns(chosen: TableColumns) -> tuple[Column, ...]:
    """Return the columns of a CSV or Parquet table in their order."""
    columns = [Column("path", "string", lambda row: format_path(row.path)), Column("label", "string", _get_label)]
    if chosen.value:
        columns.append(Column("value", "double", lambda row: row.value))
    columns += [Column(name_class_column(name), "float", _get_probability(name)) for name in chosen.classes]
    if chosen.sets == "sets":
        columns.append(Column("prediction_set", "list<string>", lambda row: row.prediction_set))
    if chosen.sets == "intervals":
        columns.append(Column("low", "double", lambda row: row.interval and row.interval[0]))
        columns.append(Column("high", "double", lambda row: row.interval and row.interval[1]))
    if chosen.out_of_distribution:
        columns.append(Column("out_of_distribution", "bool", lambda row: row.out_of_distribution))
        columns.append(Column("out_of_distribution_score", "double", lambda row: row.out_of_distribution_score))
    return (*columns, Column("error", "string", lambda row: row.error))


def _get_label(row: ImagePrediction) -> str | None:
    return row.label


def _get_probability(name: str) -> Callable[[ImagePrediction], float | None]:
    return lambda row: row.probabilities.get(name)


def describe_prediction(prediction: ImagePrediction) -> dict[str, Any]:
    """Return a prediction as plain JSON values, without the optional keys that it has no value for."""
    document = vars(prediction) | {"path": format_path(prediction.path)}
    return {name: value for name, value in document.items() if value is not None or name not in _OPTIONAL}


def count_rows(path: Path, kind: TableFormat) -> int:
    """Return how many predictions a complete table holds.

    Raises:
        ValueError: It is no such table.
        OSError: It can't be read.
    """
    if kind == "parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(path).num_rows)
    with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        if kind == "jsonl":
            return sum(1 for _ in file)
        return max(0, sum(1 for _ in csv.reader(file)) - 1)


class TableWriter:
    """The one way to write predictions: `encode` gives the bytes to append, `convert` makes the file of them.

    Args:
        kind: The format.
        chosen: The columns; JSON lines have ``probabilities`` where there are any, and else what `describe_prediction`
            gives.
    """

    def __init__(self, kind: TableFormat, chosen: TableColumns) -> None:
        self._kind = kind
        self._chosen = chosen
        self._columns = list_columns(chosen)

    @property
    def convert(self) -> Callable[[Path, Path], None] | None:
        """What makes the file of the appended bytes; None where these are it."""
        return self._write_parquet if self._kind == "parquet" else None

    def start(self) -> bytes:
        """Return the bytes before the first row."""
        if self._kind == "csv":
            return _format_csv([[quote_cell(column.name) for column in self._columns]])
        if self._kind == "parquet":
            return self._format_arrow([], with_schema=True)
        return b""

    def encode(self, rows: Sequence[ImagePrediction]) -> bytes:
        """Return the bytes of some rows, in which no cell of a CSV file is a formula to a spreadsheet."""
        if self._kind == "csv":
            names = [column.name for column in self._columns]
            return _format_csv(
                [quote_row(names, [_format_cell(column.get(row)) for column in self._columns]) for row in rows]
            )
        if self._kind == "parquet":
            return self._format_arrow(rows)
        return "".join(self._format_json(row) for row in rows).encode("utf-8", "backslashreplace")

    def _format_json(self, row: ImagePrediction) -> str:
        document = describe_prediction(row)
        if not self._chosen.classes:
            del document["probabilities"]
        return json.dumps(document, ensure_ascii=False) + "\n"

    def _schema(self) -> Any:
        import pyarrow

        kinds = {"list<string>": pyarrow.list_(pyarrow.string())}
        return pyarrow.schema([(column.name, kinds.get(column.kind) or column.kind) for column in self._columns])

    def _format_arrow(self, rows: Sequence[ImagePrediction], *, with_schema: bool = False) -> bytes:
        import pyarrow

        schema = self._schema()
        if with_schema:
            return bytes(schema.serialize())
        arrays = [
            pyarrow.array([column.get(row) for row in rows], type=field.type)
            for column, field in zip(self._columns, schema, strict=True)
        ]
        return bytes(pyarrow.RecordBatch.from_arrays(arrays, schema=schema).serialize())

    def _write_parquet(self, stream: Path, path: Path) -> None:
        """Write an Arrow stream as a Parquet file, whose row groups don't depend on how the rows came."""
        import pyarrow
        from pyarrow import parquet

        group = max(1, min(_GROUP_ROWS, _GROUP_CELLS // len(self._columns)))
        schema = self._schema()
        with stream.open("rb") as file, parquet.ParquetWriter(path, schema) as writer:
            pending: list[Any] = []
            for batch in _read_arrow(file):
                check_stop()
                pending.append(batch)
                if sum(map(len, pending)) >= group:
                    whole = pyarrow.Table.from_batches(pending, schema)
                    writer.write_table(whole[:group], row_group_size=group)
                    pending = whole[group:].to_batches()
            if pending:
                writer.write_table(pyarrow.Table.from_batches(pending, schema), row_group_size=group)


def _read_arrow(file: io.BufferedReader) -> Iterator[Any]:
    """Yield the record batches of an Arrow stream; it need not have an end mark."""
    from pyarrow import ipc

    with ipc.open_stream(file) as reader:
        yield from reader


def _format_csv(rows: Sequence[Sequence[object]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _format_cell(value: Any) -> Any:
    if value is None:
        return ""
    return SET_SEPARATOR.join(value) if isinstance(value, tuple) else value
