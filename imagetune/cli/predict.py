"""`imagetune predict`."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagetune.cli.options import run_argument, with_option
from imagetune.cli.quiet import quiet_start
from imagetune.files import atomic_path

if TYPE_CHECKING:
    from imagetune.evaluation.pictures import PicturePrediction


@click.command(
    epilog="Example: imagetune predict runs/clipart-20261121-101500-3f2a holiday/ 'scans/*.png' --csv out.csv"
)
@run_argument
@click.argument("paths", nargs=-1, required=True)
@with_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON a picture.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write a CSV file with a column a class.")
def command(run: str, paths: tuple[str, ...], others: tuple[str, ...], as_json: bool, csv_file: Path | None) -> None:
    """Say what the pictures in PATHS (files, folders, patterns) show, by the model of RUN.

    The label is a class; for multi_label the labels whose probability reaches their thresholds, joined by
    data.label_separator, perhaps none; for regression the number, which JSON has as "value" too, and no probabilities.
    """
    with quiet_start():
        from imagetune import ensembles, runs

    predictions = ensembles.predict((run, *others), paths) if others else runs.predict(run, paths)
    if csv_file is not None:
        _write_csv(predictions, csv_file)
        return
    for prediction in predictions:
        if as_json:
            click.echo(json.dumps(_document(prediction), ensure_ascii=False))
        elif prediction.error is not None:
            click.echo(f"{prediction.path}\terror: {prediction.error}")
        else:
            click.echo(f"{prediction.path}\t{prediction.label}{_sureness(prediction)}")


def _document(prediction: PicturePrediction) -> dict[str, Any]:
    """Return the line of JSON; only a number has a value."""
    document = asdict(prediction)
    if prediction.value is None:
        del document["value"]
    return document


def _sureness(prediction: PicturePrediction) -> str:
    """Return the probability of a class; several labels and numbers have none."""
    found = prediction.probabilities.get(prediction.label or "")
    return "" if found is None else f"\t{found:.3f}"


def _write_csv(predictions: Iterable[PicturePrediction], path: Path) -> None:
    rows = list(predictions)
    names = next((list(row.probabilities) for row in rows if row.probabilities), [])
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", *names, "error"])
        for row in rows:
            values = [row.probabilities.get(name, "") for name in names]
            writer.writerow([row.path, row.label or "", *values, row.error or ""])
