"""The command `imagetune report`: write a report again."""

from __future__ import annotations

import click

from imagetune.cli.options import run_argument
from imagetune.cli.render.lines import echo, print_progress
from imagetune.core.quiet import quiet_start


@click.command(epilog="Example: imagetune report runs/clipart-20261121-101500-3f2a")
@run_argument
def command(run: str) -> None:
    """Write report.html of RUN, the folder of a run or a search, again, and update its copy in MLflow if it has one."""
    with quiet_start():
        from imagetune.commands.report import report

    echo(report(run, say=print_progress))
