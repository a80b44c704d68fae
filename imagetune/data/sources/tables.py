"""Tables as data sources: CSV and Parquet with path, label, split and group; Hugging Face's metadata.csv."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetune.core.files import is_file
from imagetune.core.path_names import expand_home, find_spelling
from imagetune.data.findings import CODES, Finding
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.columns import ONE_HOT, SLICE, read_one_hot, require_columns
from imagetune.data.sources.csv_files import clean_name, read_csv_columns, read_csv_head
from imagetune.data.sources.labels import PLAIN_COLUMN, format_exact_number, join_labels, require_plain
from imagetune.data.sources.parquet_files import list_dictionary_texts, read_parquet_columns, read_parquet_names
from imagetune.data.sources.records import Record
from imagetune.data.sources.split_names import parse_split_name
from imagetune.data.sources.table_bounds import require_bounded_csv, require_columns_bounded
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.sections.data import DataConfig

_HUGGING_FACE_PATH = "file_name"
_PLAIN_PATH = "path"
# Stands for the cell in data.columns.path_format.
_CELL = "{}"


@dataclass(frozen=True)
class _Rows:
    """Columns of a table as text.

    Attributes:
        cells: The cells by the column's meaning: path, label, split, group, slices.
        lines: Where each row stands in the file, for messages.
        word: What ``lines`` counts: lines of a CSV file or rows of a Parquet file.
        findings: What was left out or guessed.
    """

    cells: dict[str, list[str | None]]
    lines: Sequence[int]
    word: str
    findings: tuple[Finding, ...] = ()


def read_table(table: Path, config: DataConfig) -> Catalog:
    """Return the catalog of a CSV, TSV or Parquet table; relative paths start at the table's folder.

    Every value is text: ``00123``, ``yes`` and ``NA`` are class names like any other. Parquet labels may be lists of
    text for multi_label and floating-point numbers for regression.

    Raises:
        DataError: A column is missing, a required cell is empty, a split name is unknown, or the table is corrupted.
    """
    rows = _read_rows(table, _name_columns(config, path=config.columns.path), config)
    return Catalog(table.parent, _build_records(rows, table, table.parent, config), rows.findings)


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
    findings: list[Finding] = []
    for top, split in tops.items():
        table = top / "metadata.csv"
        if not is_file(table):
            raise DataError("has no metadata.csv, but another split folder has one", where=str(top))
        rows = _read_rows(table, columns, config)
        if split is not None:
            rows.cells.pop("split", None)
        found = _build_records(rows, table, top, config)
        records += [Record(r.path, r.label, split or r.split, r.group, r.slices) for r in found]
        findings += rows.findings
    if all(record.split is None for record in records):
        records = _assign_folder_splits(records, source)
    return Catalog(source, tuple(records), tuple(findings))


def _assign_folder_splits(records: list[Record], source: Path) -> list[Record]:
    """Return the records with the splits of their top folders, as in a metadata.csv with ``train/1.png``."""
    firsts = [Path(r.path).relative_to(source).parts[0] if Path(r.path).is_relative_to(source) else "" for r in records]
    splits = [parse_split_name(first) for first in firsts]
    if None in splits or "train" not in splits or len(set(splits)) == 1:
        return records
    return [Record(r.path, r.label, split, r.group, r.slices) for r, split in zip(records, splits, strict=True)]


def _name_columns(config: DataConfig, *, path: str) -> dict[str, str]:
    """Return the name of each column by its meaning: path, label or one-hot classes, split, group and slices."""
    names = config.columns
    meant = {"path": path} | ({} if names.one_hot else {"label": names.label})
    meant |= {"split": names.split, "group": names.group}
    meant |= {ONE_HOT + name: name for name in names.one_hot} | {SLICE + name: name for name in names.slices}
    return {key: clean_name(name) for key, name in meant.items()}


def _read_rows(table: Path, columns: dict[str, str], config: DataConfig) -> _Rows:
    """Return the existing columns as text, by their meaning."""
    try:
        read = _read_parquet if table.suffix.lower() == ".parquet" else _read_csv
        rows = read(table, columns, config)
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror or error}", where=str(table)) from error
    if config.columns.one_hot:
        rows.cells["label"] = list(read_one_hot(_take(rows.cells, ONE_HOT), rows.lines, rows.word, table, config))
    return rows


def _take(cells: dict[str, list[str | None]], prefix: str) -> dict[str, list[str | None]]:
    """Return the columns of one meaning by their name, and take them out of the others."""
    return {key.removeprefix(prefix): cells.pop(key) for key in [*cells] if key.startswith(prefix)}


def _read_csv(table: Path, columns: dict[str, str], config: DataConfig) -> _Rows:
    has_zeros = require_bounded_csv(table)
    head = read_csv_head(table, list(columns.values()))
    require_columns_bounded(table, len(head.names))
    defaults = (columns["path"], columns.get("label")) == (_PLAIN_PATH, PLAIN_COLUMN) and not config.columns.slices
    headless = head.headless if defaults else None
    if headless:
        found = {"path": headless[0], "label": headless[1]}
    else:
        require_columns(head.names, columns, table, rows=head.rows)
        found = {key: head.names.index(name) for key, name in columns.items() if name in head.names}
    read = read_csv_columns(table, found, head.names, headless=headless is not None)
    findings = (_describe_headless(head.names, headless), *read.findings) if headless else read.findings
    rows = _Rows(read.cells, read.lines, "line", findings)
    return _refuse_zero_bytes(rows, table) if has_zeros else rows


def _describe_headless(names: Sequence[str], headless: tuple[int, int]) -> Finding:
    first, second = ("path", "label") if headless[0] == 0 else ("label", "path")
    title = f"the table has no header: its first column is read as the {first}, its second as the {second}"
    return Finding("no-header", CODES["no-header"].severity, title, f"the first line is {','.join(names)}")


def _read_parquet(table: Path, columns: dict[str, str], config: DataConfig) -> _Rows:
    names = read_parquet_names(table)
    # Names as CSV files have them, so that both spell a column alike.
    header = {clean_name(name): name for name in names}
    require_columns(tuple(map(clean_name, names)), columns, table)
    present = {key: header[name] for key, name in columns.items() if name in header}
    found = read_parquet_columns(table, present.values())
    try:
        cells = {key: _read_cells(key, found[name], name, table, config) for key, name in present.items()}
    except UnicodeDecodeError as error:
        raise DataError("has text that is not UTF-8", where=str(table)) from error
    return _refuse_zero_bytes(_Rows(cells, range(1, found.num_rows + 1), "row"), table)


def _read_cells(key: str, column: Any, name: str, table: Path, config: DataConfig) -> list[str | None]:
    if key == "label":
        return _read_labels(column, name, table, config)
    if key.startswith((SLICE, ONE_HOT)):
        # A number or a date distinguishes slices by its text as well as a word.
        return [None if value is None else str(value) for value in _list_values(column)]
    return _convert_to_text(column, name, table)


def _list_values(column: Any) -> list[Any]:
    from pyarrow import types

    is_text = types.is_dictionary(column.type) and types.is_string(column.type.value_type)
    return list_dictionary_texts(column) if is_text else list(column.to_pylist())


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

    if types.is_dictionary(column.type) and types.is_string(column.type.value_type):
        return list_dictionary_texts(column)
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


def _build_records(rows: _Rows, table: Path, folder: Path, config: DataConfig) -> tuple[Record, ...]:
    cells = rows.cells
    paths = _require_filled(rows, "path", table)
    # An image of multi_label may have no label at all.
    unlabelled = config.task == "multi_label"
    labels = [label or "" for label in cells["label"]] if unlabelled else _require_filled(rows, "label", table)
    if not paths:
        raise DataError("has a header but no rows", where=str(table))
    splits = _parse_splits(rows, table) or [None] * len(paths)
    groups = cells.get("group")
    absolute = make_absolute(paths, folder, config.columns.path_format)
    # One string object for equal labels saves memory with a million rows.
    shared = {label: unicodedata.normalize("NFC", label.strip()) for label in set(labels)}
    names = [shared[label] for label in labels]
    if groups is None and not config.columns.slices:
        return tuple(map(Record, absolute, names, splits))
    known = [None] * len(paths) if groups is None else [group or None for group in groups]
    return tuple(map(Record, absolute, names, splits, known, _build_slices(cells, len(paths))))


def _refuse_zero_bytes(rows: _Rows, table: Path) -> _Rows:
    """Return the rows, or raise an error for a zero byte, which neither a path nor a file of ours can hold."""
    for key, values in rows.cells.items():
        # Of a million rows few may be different, and of those each may be long.
        if any("\0" in cell for cell in set(filter(None, values))):
            line = next(line for line, cell in zip(rows.lines, values, strict=True) if "\0" in (cell or ""))
            what = f"{rows.word} {line} has a zero byte in its {key}"
            raise DataError(what, where=str(table), hint="it is no text; save the table as UTF-8")
    return rows


def _build_slices(rows: dict[str, list[str | None]], count: int) -> list[tuple[tuple[str, str], ...]]:
    """Return name and value of each slice column, row by row."""
    columns = {key.removeprefix(SLICE): values for key, values in rows.items() if key.startswith(SLICE)}
    if not columns:
        return [()] * count
    cells = [[(name, (value or "").strip()) for value in values] for name, values in columns.items()]
    return list(zip(*cells, strict=True))


def _require_filled(rows: _Rows, column: str, table: Path) -> list[str]:
    filled: list[str] = []
    for line, value in zip(rows.lines, rows.cells[column], strict=True):
        if value is None or not value.strip():
            raise DataError(f"{rows.word} {line} has no {column}", where=str(table), hint="fill it or remove the row")
        filled.append(value)
    return filled


def _parse_splits(rows: _Rows, table: Path) -> list[str | None]:
    """Return train, val or test for each row; empty when the column is missing or has only empty cells."""
    words = rows.cells.get("split") or []
    if not any(words):
        return []
    known = {word: parse_split_name(word) if word else None for word in set(words)}
    for line, word in zip(rows.lines, words, strict=True):
        if known[word] is None:
            what = f"{rows.word} {line} has the split {word or ''!r}; expected train, val or test"
            hint = "leave the whole column empty to have imagetune make the splits"
            raise DataError(what, where=str(table), hint=hint)
    return [known[word] for word in words]


def make_absolute(paths: list[str], folder: Path, path_format: str) -> list[str]:
    """Return the absolute paths of a table's cells, which start at a folder.

    Args:
        paths: The cells of the column, none empty.
        folder: The table's folder.
        path_format: ``data.columns.path_format`` of the recipe.
    """
    start = f"{folder}/".replace("//", "/")
    if path_format != _CELL:
        paths = [path_format.replace(_CELL, path.strip()) for path in paths]
    absolute = [start + path if _is_plain(path) else _resolve(path, folder) for path in paths]
    return [path if path.isascii() else find_spelling(path) for path in absolute]


def _is_plain(path: str) -> bool:
    """Return whether a path can be joined as text: the common case, which must be fast for a million rows."""
    return path[0] not in "/~. " and "\\" not in path and "//" not in path and "/." not in path and path[-1] != " "


def _resolve(path: str, folder: Path) -> str:
    path = path.strip()
    plain = folder / expand_home(path)
    # Tables written on Windows have backslashes; but on other systems a file name may contain one.
    if "\\" in path and not os.path.lexists(plain):
        plain = folder / path.replace("\\", "/")
    # Not Path.resolve, which would ask the file system for each part and replace links by their targets.
    parts: list[str] = []
    for part in plain.parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part != "..":
            parts.append(part)
    return str(Path(*parts))
