"""The command `imagetune predict`: predictions for any images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imagetune.cli.options import OutputFile, run_argument, with_option
from imagetune.cli.render.lines import echo, print_progress
from imagetune.cli.render.predictions import format_prediction
from imagetune.core.quiet import quiet_start


@click.command(
    epilog="Example: imagetune predict runs/clipart-20261121-101500-3f2a holiday/ 'scans/*.png' --csv out.csv"
)
@run_argument
@click.argument("paths", nargs=-1, required=True)
@with_option
@click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each image.")
@click.option(
    "--csv",
    "csv_file",
    type=OutputFile(".csv"),
    help="Write a CSV file with a row for each image and a column for each class.",
)
@click.option("--calibrated", is_flag=True, help="Print probabilities calibrated by temperature scaling.")
@click.option(
    "--sets",
    is_flag=True,
    help="Also print the conformal prediction set, which contains the true class with a set probability.",
)
@click.option(
    "--operating-point",
    is_flag=True,
    help="Predict the positive class of evaluate.operating_point from its threshold on.",
)
@click.option("--min-cost", is_flag=True, help="Predict the class with the lowest expected cost by evaluate.costs.")
def command(
    run: str,
    paths: tuple[str, ...],
    others: tuple[str, ...],
    as_json: bool,
    csv_file: Path | None,
    **rule_flags: bool,
) -> None:
    """Predict the labels of the images in PATHS (files, folders, patterns) with the model of RUN.

    The label is a class; for multi_label all labels whose probabilities reach their thresholds, joined by
    data.label_separator, perhaps none; for regression a number, in JSON also as "value", without probabilities.

    By default the probabilities are those of model.keras, from which the test metrics were computed. --calibrated
    scales them by the temperature fitted on validation; no label changes. --sets adds the conformal prediction set,
    which contains the true class with the probability evaluate.conformal_coverage: "predictions" in JSON, the most
    probable class first, joined by ; in CSV; for regression "interval", two numbers. --operating-point predicts the
    positive class of evaluate.operating_point from its threshold on, and otherwise the most probable other class.
    --min-cost predicts the class with the lowest expected cost by evaluate.costs, from calibrated probabilities;
    "costs" in evaluation.json shows what this saves.

    Out-of-distribution images, which are unlike the training images, are flagged: do not rely on their predictions.
    JSON has "out_of_distribution", true or false, and "out_of_distribution_score"; the recipe's
    evaluate.out_of_distribution chooses the score. With --with an image is flagged if more than half of the runs that
    have a score flag it; the score is their share.
    """
    from imagetune.commands.before_keras import check_run_inputs

    check_run_inputs((run, *others), paths)
    with quiet_start():
        from imagetune.commands.predict import predict, predict_to_csv
        from imagetune.evaluation.predict import DecisionRules
        from imagetune.evaluation.prediction_table import describe_prediction

    rules = DecisionRules(**rule_flags)
    if csv_file is not None:
        predict_to_csv(run, paths, csv_file, rules, others=others, say=print_progress)
        return
    # Printed as they come: a long list shows its first lines, and `head` may end it.
    for prediction in predict(run, paths, rules, others=others, say=print_progress):
        json_line = json.dumps(describe_prediction(prediction), ensure_ascii=False) if as_json else None
        echo(json_line or format_prediction(prediction))
