"""Tables as data sources: CSV and Parquet with path, label, split and group; Hugging Face's metadata.csv."""

from __future__ import annotations

import csv
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetune.core.text import format_list, suggest_name
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.labels import format_exact_number, join_labels, require_plain
from imagetune.data.sources.records import Record
from imagetune.data.sources.split_names import parse_split_name
from imagetune.errors import DataError

if TYPE_CHECKING:
    import pyarrow

    from imagetune.recipe.sections.data import DataConfig

_HUGGING_FACE_PATH = "file_name"
_SLICE = "slice "


def read_table(table: Path, config: DataConfig) -> Catalog:
    """Return the catalog of a CSV, TSV or Parquet table; relative paths start at the table's folder.

    Every value is text: ``00123``, ``yes`` and ``NA`` are class names like any other. Parquet labels may be lists of
    text for multi_label and floating-point numbers for regression.

    Raises:
        DataError: A column is missing, a required cell is empty, a split name is unknown, or the table is corrupted.
    """
    rows = _read_rows(table, _name_columns(config, path=config.columns.path), config)
    return Catalog(table.parent, _build_records(rows, table, table.parent, config))


def read_metadata(source: Path, tops: dict[Path, str | None], config: DataConfig) -> Catalog:
    """Return the catalog of a Hugging Face ImageFolder: ``metadata.csv`` with ``file_name`` and a label column.

    Args:
        source: The root folder of the data source.
        tops: The folders that must have a metadata.csv, each with its split or None.
        config: ``columns`` and what determines how labels are parsed are used.

    Raises:
        DataError: As `read_table`, or a split folder has no metadata.csv.
    """
    columns = _name_columns(config, path=_HUGGING_FACE_PATH)
    records: list[Record] = []
    for top, split in tops.items():
        table = top / "metadata.csv"
        if not table.is_file():
            raise DataError("has no metadata.csv, but another split folder has one", where=str(top))
        rows = _read_rows(table, columns, config)
        if split is not None:
            rows.pop("split", None)
        found = _build_records(rows, table, top, config)
        records += [Record(r.path, r.label, split or r.split, r.group, r.slices) for r in found]
    if all(record.split is None for record in records):
        records = _assign_folder_splits(records, source)
    return Catalog(source, tuple(records))


def _assign_folder_splits(records: list[Record], source: Path) -> list[Record]:
    """Return the records with the splits of their top folders, as in a metadata.csv with ``train/1.png``."""
    firsts = [Path(r.path).relative_to(source).parts[0] if Path(r.path).is_relative_to(source) else "" for r in records]
    splits = [parse_split_name(first) for first in firsts]
    if None in splits or "train" not in splits or len(set(splits)) == 1:
        return records
    return [Record(r.path, r.label, split, r.group, r.slices) for r, split in zip(records, splits, strict=True)]


def _name_columns(config: DataConfig, *, path: str) -> dict[str, str]:
    """Return the name of each column by its meaning: path, label, split, group and slices."""
    names = config.columns
    meant = {"path": path, "label": names.label, "split": names.split, "group": names.group}
    return meant | {_SLICE + name: name for name in names.slices}


def _read_rows(table: Path, columns: dict[str, str], config: DataConfig) -> dict[str, list[str | None]]:
    """Return the existing columns as text, by their meaning."""
    from pyarrow import ArrowException

    try:
        found = _read_parquet(table, columns) if table.suffix.lower() == ".parquet" else _read_csv(table, columns)
    except (ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"is not a readable table: {' '.join(str(error).split())}", where=str(table)) from error
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(table)) from error
    present = {key: name for key, name in columns.items() if name in found.column_names}
    return {key: _read_cells(key, found[name], name, table, config) for key, name in present.items()}


def _read_cells(key: str, column: Any, name: str, table: Path, config: DataConfig) -> list[str | None]:
    if key == "label":
        return _read_labels(column, name, table, config)
    if key.startswith(_SLICE):
        # A number or a date distinguishes slices by its text as well as a word.
        return [None if value is None else str(value) for value in column.to_pylist()]
    return _convert_to_text(column, name, table)


def _read_csv(table: Path, columns: dict[str, str]) -> pyarrow.Table:
    import pyarrow
    from pyarrow import csv as arrow_csv

    # Spreadsheets begin a file with a byte-order mark, which would become part of the first column's name.
    with table.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
    if not first.strip():
        raise DataError("is empty; expected a header line with the names of the columns", where=str(table))
    # Spreadsheets write semicolons where the comma is the decimal point.
    delimiter = max(",;\t", key=first.count)
    header = next(csv.reader([first], delimiter=delimiter))
    _require_columns(header, columns, table)
    wanted = [name for name in dict.fromkeys(columns.values()) if name in header]
    return arrow_csv.read_csv(
        table,
        parse_options=arrow_csv.ParseOptions(delimiter=delimiter),
        convert_options=arrow_csv.ConvertOptions(
            column_types={name: pyarrow.string() for name in wanted},
            include_columns=wanted,
            strings_can_be_null=False,
        ),
    )


def _read_parquet(table: Path, columns: dict[str, str]) -> pyarrow.Table:
    from pyarrow import parquet

    header = parquet.read_schema(table).names
    _require_columns(header, columns, table)
    return parquet.read_table(table, columns=[name for name in dict.fromkeys(columns.values()) if name in header])


def _require_columns(header: list[str], columns: dict[str, str], table: Path) -> None:
    for key in ("path", "label", *(key for key in columns if key.startswith(_SLICE))):
        name = columns[key]
        if name not in header:
            guess = suggest_name(name, header)
            meant = "slices" if key.startswith(_SLICE) else key
            hint = "" if name == _HUGGING_FACE_PATH else f"set data.columns.{meant} to the column's name"
            hint = f"{guess} {hint}".strip()
            what = f"has no column {name!r}; its columns are {format_list(map(repr, header), most=20)}"
            raise DataError(what, where=str(table), hint=hint)


def _read_labels(column: Any, name: str, table: Path, config: DataConfig) -> list[str | None]:
    """Return the label column as text; regression also accepts numbers, multi_label also lists."""
    from pyarrow import types

    if config.task == "regression" and (types.is_floating(column.type) or types.is_decimal(column.type)):
        return [None if value is None else format_exact_number(float(value)) for value in column.to_pylist()]
    if config.task == "multi_label" and (types.is_list(column.type) or types.is_large_list(column.type)):
        return [_join(labels, name, table, config.label_separator) for labels in column.to_pylist()]
    return _convert_to_text(column, name, table)


def _join(labels: list[Any] | None, name: str, table: Path, separator: str) -> str:
    for label in labels or []:
        if not isinstance(label, str):
            raise DataError(f"column {name!r} has the label {label!r}; expected text", where=str(table))
        require_plain(label, separator, where=str(table))
    return join_labels(labels or [], separator)


def _convert_to_text(column: Any, name: str, table: Path) -> list[str | None]:
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if types.is_integer(column.type) or types.is_boolean(column.type) or types.is_large_string(column.type):
        column = column.cast(pyarrow.string())
    if types.is_null(column.type):
        return [None] * len(column)
    if not types.is_string(column.type):
        what = f"column {name!r} is of type {column.type}; expected text or whole numbers"
        raise DataError(what, where=str(table))
    texts: list[str | None] = column.to_pylist()
    return texts


def _build_records(
    rows: dict[str, list[str | None]], table: Path, folder: Path, config: DataConfig
) -> tuple[Record, ...]:
    paths = _require_filled(rows["path"], "path", table)
    # An image of multi_label may have no label at all.
    unlabelled = config.task == "multi_label"
    labels = [label or "" for label in rows["label"]] if unlabelled else _require_filled(rows["label"], "label", table)
    if not paths:
        raise DataError("has a header but no rows", where=str(table))
    splits = _parse_splits(rows.get("split"), table) or [None] * len(paths)
    groups = rows.get("group")
    absolute = _make_absolute(paths, folder)
    # One string object for equal labels saves memory with a million rows.
    shared: dict[str, str] = {label: unicodedata.normalize("NFC", label) for label in set(labels)}
    names = [shared[label] for label in labels]
    if groups is None and not config.columns.slices:
        return tuple(map(Record, absolute, names, splits))
    known = [None] * len(paths) if groups is None else [group or None for group in groups]
    return tuple(map(Record, absolute, names, splits, known, _build_slices(rows, len(paths))))


def _build_slices(rows: dict[str, list[str | None]], count: int) -> list[tuple[tuple[str, str], ...]]:
    """Return name and value of each slice column, row by row."""
    columns = {key.removeprefix(_SLICE): values for key, values in rows.items() if key.startswith(_SLICE)}
    if not columns:
        return [()] * count
    cells = [[(name, (value or "").strip()) for value in values] for name, values in columns.items()]
    return list(zip(*cells, strict=True))


def _require_filled(values: list[str | None], column: str, table: Path) -> list[str]:
    filled: list[str] = []
    for row, value in enumerate(values, start=1):
        if value is None or not value.strip():
            what = f"row {row} below the header has no {column}"
            raise DataError(what, where=str(table), hint="fill it or remove the row")
        filled.append(value)
    return filled


def _parse_splits(words: list[str | None] | None, table: Path) -> list[str | None]:
    """Return train, val or test for each row; empty when the column is missing or has only empty cells."""
    if not words:
        return []
    known = {word: parse_split_name(word) if word else None for word in set(words)}
    if not any(words):
        return []
    for row, word in enumerate(words, start=1):
        if known[word] is None:
            what = f"row {row} below the header has the split {word or ''!r}; expected train, val or test"
            hint = "leave the whole column empty to have imagetune make the splits"
            raise DataError(what, where=str(table), hint=hint)
    return [known[word] for word in words]


def _make_absolute(paths: list[str], folder: Path) -> list[str]:
    start = f"{folder}/".replace("//", "/")
    return [start + path if _is_plain(path) else str(_resolve(path, folder)) for path in paths]


def _is_plain(path: str) -> bool:
    """Return whether a path can be joined as text: the common case, which must be fast for a million rows."""
    return path[0] not in "/~. " and "\\" not in path and "//" not in path and "/." not in path and path[-1] != " "


def _resolve(path: str, folder: Path) -> Path:
    path = path.strip()
    plain = folder / Path(path).expanduser()
    # Tables written on Windows have backslashes; but on other systems a file name may contain one.
    if "\\" in path and not plain.exists():
        plain = folder / path.replace("\\", "/")
    # Not Path.resolve, which would ask the file system for each part and replace links by their targets.
    parts: list[str] = []
    for part in plain.parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part != "..":
            parts.append(part)
    return Path(*parts)
