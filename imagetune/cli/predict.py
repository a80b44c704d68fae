"""`imagetune predict`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagetune.cli.options import run_argument, with_option
from imagetune.cli.quiet import quiet_start
from imagetune.cli.render.lines import say
from imagetune.cli.render.predictions import prediction_line
from imagetune.core.text import format_count

if TYPE_CHECKING:
    from imagetune.evaluation.predict import ImagePrediction


@click.command(
    epilog="Example: imagetune predict runs/clipart-20261121-101500-3f2a holiday/ 'scans/*.png' --csv out.csv"
)
@run_argument
@click.argument("paths", nargs=-1, required=True)
@with_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON an image.")
@click.option("--csv", "csv_file", type=click.Path(path_type=Path), help="Write a CSV file with a column a class.")
@click.option("--calibrated", is_flag=True, help="Print probabilities calibrated on validation.")
@click.option(
    "--sets",
    is_flag=True,
    help="Also print the prediction set, which holds the true class 9 of 10 times (say).",
)
@click.option("--operating-point", is_flag=True, help="Predict by the threshold of evaluate.operating_point.")
@click.option("--min-cost", is_flag=True, help="Predict the class with the lowest expected cost by evaluate.costs.")
def command(
    run: str,
    paths: tuple[str, ...],
    others: tuple[str, ...],
    as_json: bool,
    csv_file: Path | None,
    **asked: bool,
) -> None:
    """Predict the labels of the images in PATHS (files, folders, patterns) with the model of RUN.

    The label is a class; for multi_label the labels whose probability reaches their thresholds, joined by
    data.label_separator, perhaps none; for regression the number, which JSON has as "value" too, without probabilities.

    By default probabilities and labels are those of model.keras, from which the test metrics were computed.
    --calibrated prints probabilities at the temperature fitted on validation; no label changes. --sets adds the
    conformal prediction set, which holds the true class with the probability of evaluate.conformal_coverage:
    "predictions" in JSON, the most probable first, and joined by ; in CSV; for regression "interval", two numbers.
    --operating-point predicts the class of evaluate.operating_point from its threshold on, and else the most probable
    other class. --min-cost predicts the class with the lowest expected cost by evaluate.costs, from calibrated
    probabilities; evaluation.json says under "costs" what that is worth.

    An out-of-distribution image, unlike those that the model was trained on, is flagged: do not rely on its prediction.
    JSON has "out_of_distribution", true or false, and "out_of_distribution_score"; evaluate.out_of_distribution sets
    how. With --with an image is flagged if more than half of the runs that can tell flag it; the score is their share.
    """
    with quiet_start():
        from imagetune.commands import ensemble
        from imagetune.commands.predict import predict
        from imagetune.data.sources.read import find_images, none_read, spare_images
        from imagetune.evaluation.predict import DecisionRules

    ways = DecisionRules(**asked)
    if ways.operating_point and ways.min_cost:
        raise click.UsageError("--operating-point and --min-cost exclude each other: give one of them")
    if others and ways != DecisionRules():
        what = "--calibrated, --sets, --operating-point and --min-cost need a single run"
        raise click.UsageError(f"{what}: leave --with out")
    if csv_file is not None:
        spare_images([csv_file], find_images(paths))
    predictions = ensemble.predict((run, *others), paths) if others else predict(run, paths, ways)
    read = _print(predictions, as_json=as_json) if csv_file is None else _write_csv(predictions, csv_file)
    if not read:
        raise none_read()


def _print(predictions: Iterable[ImagePrediction], *, as_json: bool) -> bool:
    """Print a line an image as it is predicted, and return whether any could be read."""
    from imagetune.evaluation.prediction_table import prediction_document

    read = False
    for prediction in predictions:
        read |= prediction.error is None
        json_line = json.dumps(prediction_document(prediction), ensure_ascii=False) if as_json else None
        click.echo(json_line or prediction_line(prediction))
    return read


def _write_csv(predictions: Iterable[ImagePrediction], path: Path) -> bool:
    """Write a row an image, and return whether any could be read."""
    from imagetune.evaluation.prediction_table import write_prediction_table

    rows, unread = write_prediction_table(predictions, path)
    say(
        "written",
        f"{path}: {format_count(rows, 'image')}" + (f", {unread:,} of them can't be read" if unread else ""),
    )
    return unread < rows
