"""The command `imagetune compare`: compare runs on their shared test images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imagetune.cli.options import OutputFile, json_option
from imagetune.cli.render.lines import echo


@click.command(epilog="Example: imagetune compare runs/clipart-a runs/clipart-b --page compared.html")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option(
    "--common",
    is_flag=True,
    help="Where test images differ, compare on those that all runs share and none was trained on.",
)
@click.option(
    "--metric",
    metavar="NAME",
    help="The metric that decides, such as balanced_accuracy; by default the task's main one.",
)
@json_option
@click.option("--page", type=OutputFile(".html", ".htm"), help="Also write a self-contained HTML page.")
def command(runs: tuple[str, ...], common: bool, metric: str | None, as_json: bool, page: Path | None) -> None:
    """Compare RUNs on the same test images, and test whether their difference is significant.

    A RUN is a run folder or a runs:/ or models:/ address. Predictions are read from the folders of the runs.
    """
    from imagetune.commands.before_keras import check_run_count, check_runs

    # The imports of the comparison take seconds.
    check_run_count(runs)
    check_runs(runs, trained=False)
    from imagetune.cli.render.compare import format_comparison
    from imagetune.cli.render.lines import echo_lines, format_line
    from imagetune.commands import compare

    compared = compare.compare(runs, common=common, metric=metric)
    if page is not None:
        compare.write_page(compared, page)
    if as_json:
        # NaN isn't JSON, and strict parsers refuse the whole document for it.
        echo(json.dumps(compared.document, ensure_ascii=False, allow_nan=False))
        return
    echo_lines(format_comparison(compared.document))
    if page is not None:
        echo_lines([format_line("page", str(page))])
