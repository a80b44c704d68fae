"""The command `imagetune predict`: predictions for any images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from imagetune.cli.options import OutputFile, run_argument, with_option
from imagetune.cli.render.lines import echo, print_progress
from imagetune.cli.render.predictions import format_prediction
from imagetune.core.quiet import quiet_start

if TYPE_CHECKING:
    from imagetune.evaluation.prediction_table import TableFormat


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
@click.option("--jsonl", "jsonl_file", type=OutputFile(".jsonl"), help="Write the lines of --json to a file.")
@click.option(
    "--parquet", "parquet_file", type=OutputFile(".parquet"), help="Write a Parquet file with the columns of --csv."
)
@click.option("--resume", is_flag=True, help="Go on with a file that was begun, after a stop or a kill.")
@click.option("--no-probabilities", is_flag=True, help="Leave the classes' probabilities out of the file.")
@click.option("--ood", is_flag=True, help="Add the out-of-distribution flag and score to the CSV or Parquet file.")
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
    resume: bool,
    no_probabilities: bool,
    ood: bool,
    **options: Any,
) -> None:
    """Predict the labels of the images in PATHS (files, folders, patterns, tables) with the model of RUN.

    A table (.csv, .tsv, .parquet) lists paths, relative to its own folder, in the column that data.columns.path of the
    run's recipe names; a row of it is a row of the result. Images that can't be read get a reason instead of a label.

    --csv, --jsonl and --parquet take any number of images in the same memory. The file is there when it is complete;
    until then it grows in FILE.partial, and after a stop or a kill the same command with --resume goes on, which exits
    with 6 if model, images, rules or columns are others.

    The label is a class; for multi_label all labels whose probabilities reach their thresholds, joined by
    data.label_separator, perhaps none; for regression a number, in JSON also as "value", without probabilities.

    By default the probabilities are those of model.keras, from which the test metrics were computed. --calibrated
    scales them by the temperature fitted on validation; no label changes. --sets adds the conformal prediction set,
    which contains the true class with the probability evaluate.conformal_coverage: "prediction_set" in JSON, the most
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

    kinds: tuple[TableFormat, ...] = ("csv", "jsonl", "parquet")
    files = {kind: file for kind in kinds if (file := options.pop(f"{kind}_file")) is not None}
    _check_outputs(files, as_json=as_json, for_files={"--resume": resume, "--no-probabilities": no_probabilities})
    if ood and not files.keys() & {"csv", "parquet"}:
        raise click.UsageError("--ood needs --csv or --parquet; JSON has the out-of-distribution score anyway.")
    check_run_inputs((run, *others), paths)
    with quiet_start():
        from imagetune.commands.predict import predict
        from imagetune.commands.predict_table import TableRequest, predict_to_table
        from imagetune.evaluation.image_predictions import DecisionRules
        from imagetune.evaluation.prediction_table import describe_prediction
        from imagetune.training.setup.stopping import listen_for_requeue, listen_for_stop
    from imagetune.cli.render.count import show_count

    rules = DecisionRules(**options)
    for kind, file in files.items():
        table = TableRequest(file, kind, not no_probabilities, ood, resume)
        # The bar is the outer one: it is taken from the terminal also when a signal ends the work.
        with show_count("predicted", "images") as (say, progress), listen_for_requeue(resume=resume, max_seconds=None):
            predict_to_table(run, paths, table, rules, others=others, say=say, progress=progress)
        return
    # Printed as they come: a long list shows its first lines, and `head` may end it.
    with listen_for_stop():
        for prediction in predict(run, paths, rules, others=others, say=print_progress):
            json_line = json.dumps(describe_prediction(prediction), ensure_ascii=False) if as_json else None
            echo(json_line or format_prediction(prediction))


def _check_outputs(files: Mapping[TableFormat, Path], *, as_json: bool, for_files: Mapping[str, bool]) -> None:
    """Refuse two outputs, and options of files without a file.

    Raises:
        click.UsageError: They are given.
    """
    chosen = [f"--{kind}" for kind in (*files, *(["json"] if as_json else []))]
    if len(chosen) > 1:
        raise click.UsageError(f"{' and '.join(chosen)} exclude each other; give one of them.")
    for option, given in for_files.items():
        if given and not files:
            raise click.UsageError(f"{option} needs --csv, --jsonl or --parquet.")
