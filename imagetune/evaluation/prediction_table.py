"""Predictions for unlabelled images as JSON objects and as a CSV file, for other programs."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imagetune.core.csv_cells import quote_cell, quote_row
from imagetune.core.files import replace_atomically
from imagetune.core.path_names import format_path
from imagetune.data.sources.labels import name_class_column
from imagetune.evaluation.predict import ImagePrediction

# Not a comma, which separates the columns.
SET_SEPARATOR = ";"
_OPTIONAL = ("value", "predictions", "interval", "out_of_distribution", "out_of_distribution_score")


def describe_prediction(prediction: ImagePrediction) -> dict[str, Any]:
    """Return a prediction as plain JSON values, without the optional keys that it has no value for."""
    document = asdict(prediction) | {"path": format_path(prediction.path)}
    return {name: value for name, value in document.items() if value is not None or name not in _OPTIONAL}


def write_prediction_table(predictions: Iterable[ImagePrediction], path: Path) -> tuple[int, int]:
    """Write a CSV file with one row for each image and one column for each class, and return its rows and errors.

    No cell is a formula to a spreadsheet: see `imagetune.core.csv_cells`.

    Returns:
        Number of rows, and number of rows with an error.

    Raises:
        ResourceError: The file can't be written.
    """
    # All at once, as the columns follow from the first image that could be read, which may come late.
    rows = list(predictions)
    names = next((list(row.probabilities) for row in rows if row.probabilities), [])
    sets = _set_columns(rows)
    with replace_atomically(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        header = ["path", "label", *map(name_class_column, names), *sets, "error"]
        writer.writerow(map(quote_cell, header))
        for row in rows:
            values: list[object] = [row.probabilities.get(name, "") for name in names]
            cells = [*values, *(cell(row) for cell in sets.values()), row.error or ""]
            writer.writerow(quote_row(header, [format_path(row.path), row.label or "", *cells]))
    return len(rows), sum(row.error is not None for row in rows)


def _set_columns(rows: Iterable[ImagePrediction]) -> dict[str, Callable[[ImagePrediction], object]]:
    """Return the columns of prediction sets or intervals, each with a function to its cell; empty without either."""
    for row in rows:
        if row.predictions is not None:
            return {"predictions": lambda row: SET_SEPARATOR.join(row.predictions or ())}
        if row.interval is not None:
            return {
                "low": lambda row: "" if row.interval is None else row.interval[0],
                "high": lambda row: "" if row.interval is None else row.interval[1],
            }
    return {}
