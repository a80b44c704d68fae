"""`imagetune sync`."""

from __future__ import annotations

from pathlib import Path

import click

from imagetune.cli.quiet import quiet_start


@click.command(epilog="Example: imagetune sync runs/clipart-20261121-101500-3f2a")
@click.argument("run", type=click.Path(path_type=Path))
def command(run: Path) -> None:
    """Send to MLflow what RUN has not sent yet, with the trials of a search; a second call changes nothing."""
    with quiet_start():
        from imagetune.commands.sync import sync

    click.echo(sync(run))
