"""`imagetune predict`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagetune.cli.options import run_argument, say, with_option
from imagetune.cli.quiet import quiet_start
from imagetune.core.files import atomic_path
from imagetune.core.text import format_count

if TYPE_CHECKING:
    from imagetune.evaluation.pictures import PicturePrediction

SET_SEPARATOR = ";"


@click.command(
    epilog="Example: imagetune predict runs/clipart-20261121-101500-3f2a holiday/ 'scans/*.png' --csv out.csv"
)
@run_argument
@click.argument("paths", nargs=-1, required=True)
@with_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON a picture.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write a CSV file with a column a class.")
@click.option("--calibrated", is_flag=True, help="Show probabilities as sure as validation says they may be.")
@click.option("--sets", is_flag=True, help="Also show the set of answers that holds the true one, 9 of 10 times (say).")
@click.option("--operating-point", is_flag=True, help="Answer by the threshold of evaluate.operating_point.")
@click.option("--least-cost", is_flag=True, help="Answer with what evaluate.costs expects to cost least.")
def command(
    run: str,
    paths: tuple[str, ...],
    others: tuple[str, ...],
    as_json: bool,
    csv_file: Path | None,
    **asked: bool,
) -> None:
    """Say what the pictures in PATHS (files, folders, patterns) show, by the model of RUN.

    The label is a class; for multi_label the labels whose probability reaches their thresholds, joined by
    data.label_separator, perhaps none; for regression the number, which JSON has as "value" too, and no probabilities.

    Probabilities and labels are those of the model itself, as model.keras gives them and the test figures are made of,
    unless asked otherwise. --calibrated shows probabilities at the temperature that validation gave; no label changes.
    --sets adds the answers among which the true one is with the probability of evaluate.conformal_coverage: "answers"
    in JSON, the likeliest first, and with ; between them in CSV; for regression "interval", two numbers.
    --operating-point answers with the class of evaluate.operating_point from its threshold on, and else with the
    likeliest other one. --least-cost answers with the class whose expected cost by evaluate.costs is least, by the
    probabilities at that temperature; evaluation.json says under "costs" what that is worth.

    A picture unlike those that the model learned from is told: its answer means little. JSON says so by
    "out_of_distribution", true or false, and "out_of_distribution_score"; evaluate.out_of_distribution is how. With
    --with the runs vote: it is told where more than half of those that can tell say so, and the score is their share.
    """
    with quiet_start():
        from imagetune import ensembles, runs
        from imagetune.data.catalog import find_pictures, none_read, spare_pictures
        from imagetune.evaluation.pictures import AnswerWays

    ways = AnswerWays(**asked)
    if ways.operating_point and ways.least_cost:
        raise click.UsageError("--operating-point and --least-cost are two answers: give one of them")
    if others and ways != AnswerWays():
        what = "--calibrated, --sets, --operating-point and --least-cost are of one run"
        raise click.UsageError(f"{what}: leave --with out")
    if csv_file is not None:
        spare_pictures([csv_file], find_pictures(paths))
    predictions = ensembles.predict((run, *others), paths) if others else runs.predict(run, paths, ways)
    read = _print(predictions, as_json=as_json) if csv_file is None else _write_csv(predictions, csv_file)
    if not read:
        raise none_read()


def _print(predictions: Iterable[PicturePrediction], *, as_json: bool) -> bool:
    """Print a line a picture as it is answered, and return whether any could be read."""
    read = False
    for prediction in predictions:
        read |= prediction.error is None
        if as_json:
            click.echo(json.dumps(_document(prediction), ensure_ascii=False))
        elif prediction.error is not None:
            click.echo(f"{prediction.path}\terror: {prediction.error}")
        else:
            strange = "\tunlike the training pictures" if prediction.out_of_distribution else ""
            told = f"{prediction.label}{_sureness(prediction)}{_told_set(prediction)}"
            click.echo(f"{prediction.path}\t{told}{strange}")
    return read


def _document(prediction: PicturePrediction) -> dict[str, Any]:
    """Return the line of JSON; only a number has a value, sets are told on demand, strange pictures by some models."""
    document = asdict(prediction)
    for name in ("value", "answers", "interval", "out_of_distribution", "out_of_distribution_score"):
        if document[name] is None:
            del document[name]
    return document


def _sureness(prediction: PicturePrediction) -> str:
    """Return the probability of a class; several labels and numbers have none."""
    found = prediction.probabilities.get(prediction.label or "")
    return "" if found is None else f"\t{found:.3f}"


def _told_set(prediction: PicturePrediction) -> str:
    """Return the set of answers, or the interval of a number, where it was asked for."""
    if prediction.interval is not None:
        low, high = prediction.interval
        return f"\t{low:.6g} to {high:.6g}"
    return "" if prediction.answers is None else f"\t{{{', '.join(prediction.answers)}}}"


def _set_columns(rows: Iterable[PicturePrediction]) -> dict[str, Callable[[PicturePrediction], object]]:
    """Return the columns that sets of answers take, and what stands in them."""
    for row in rows:
        if row.answers is not None:
            return {"answers": lambda row: SET_SEPARATOR.join(row.answers or ())}
        if row.interval is not None:
            return {
                "low": lambda row: "" if row.interval is None else row.interval[0],
                "high": lambda row: "" if row.interval is None else row.interval[1],
            }
    return {}


def _write_csv(predictions: Iterable[PicturePrediction], path: Path) -> bool:
    """Write a row a picture, and return whether any could be read."""
    rows = list(predictions)
    names = next((list(row.probabilities) for row in rows if row.probabilities), [])
    sets = _set_columns(rows)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", *names, *sets, "error"])
        for row in rows:
            values = [row.probabilities.get(name, "") for name in names]
            told = [of(row) for of in sets.values()]
            writer.writerow([row.path, row.label or "", *values, *told, row.error or ""])
    unread = sum(row.error is not None for row in rows)
    say(f"{path}: {format_count(len(rows), 'picture')}" + (f", {unread:,} of them can't be read" if unread else ""))
    return unread < len(rows)
