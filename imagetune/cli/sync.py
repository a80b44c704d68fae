"""The command `imagetune sync`: send a run to MLflow."""

from __future__ import annotations

from pathlib import Path

import click

from imagetune.cli.render.lines import echo
from imagetune.core.quiet import quiet_start


@click.command(epilog="Example: imagetune sync runs/clipart-20261121-101500-3f2a")
@click.argument("run", type=click.Path(path_type=Path))
def command(run: Path) -> None:
    """Send to MLflow what it lacks of RUN, the folder of a run or a search; calling it again changes nothing."""
    with quiet_start():
        from imagetune.commands.sync import sync

    echo(sync(run))
