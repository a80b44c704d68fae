"""`imagetune report`."""

from __future__ import annotations

import click

from imagetune.cli.options import run_argument
from imagetune.cli.quiet import quiet_start


@click.command(epilog="Example: imagetune report runs/clipart-20261121-101500-3f2a")
@run_argument
def command(run: str) -> None:
    """Write report.html of RUN again from the files in its folder."""
    with quiet_start():
        from imagetune import runs

    click.echo(runs.report(run))
