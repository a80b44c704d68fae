"""The commands `imagetune sync` and `imagetune ui`: MLflow's copy of runs, and its UI."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from imagetune.cli.render.lines import echo
from imagetune.core.quiet import quiet_start


@click.command(epilog="Example: imagetune sync runs/clipart-20261121-101500-3f2a")
@click.argument("run", type=click.Path(path_type=Path))
def sync(run: Path) -> None:
    """Send to MLflow what it lacks of RUN, the folder of a run or a search; calling it again changes nothing."""
    with quiet_start():
        from imagetune.commands.sync import sync as send

    echo(send(run))


@click.command(epilog="Example: imagetune ui --port 5001")
@click.option(
    "--uri", metavar="URI", help="MLflow store or server; $MLFLOW_TRACKING_URI or sqlite:///mlflow.db by default."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=5000, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option(
    "--browser/--no-browser",
    default=None,
    help="Open the page in a browser, or not; by default from a terminal with a desktop.",
)
def ui(uri: str | None, host: str, port: int, browser: bool | None) -> int:
    """Serve MLflow's UI for the store that runs are recorded in, open at the newest experiment's test metrics."""
    from imagetune.tracking.ui import has_browser, run_ui

    opens = sys.stdout.isatty() and has_browser() if browser is None else browser
    return run_ui(uri, host=host, port=port, open_browser=opens)
