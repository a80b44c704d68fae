"""The command `imagetune runs`: look after the folders of runs."""

from __future__ import annotations

from pathlib import Path

import click

from imagetune.cli.render.lines import echo, format_line
from imagetune.cli.render.tables import format_table
from imagetune.core.text import format_list


@click.group(epilog="Example: imagetune runs prune runs")
def command() -> None:
    """Look after the folders of runs."""


@command.command("prune", epilog="Example: imagetune runs prune runs --yes")
@click.argument("places", metavar="[RUN OR FOLDER]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--models", is_flag=True, help="Also the models of finished runs; metrics, predictions, reports stay.")
@click.option("--unfinished", is_flag=True, help="Also runs that failed or were stopped and have no model, as a whole.")
@click.option("--yes", is_flag=True, help="Remove it; without this it is only listed.")
def prune(places: tuple[Path, ...], models: bool, unfinished: bool, yes: bool) -> None:
    """List or remove what ended runs and searches no longer need; by default those in runs/.

    That is the checkpoints of finished runs and of the trials of finished searches (hyperband can then not go on with
    these trials), and what is left of interrupted attempts. Runs in progress are left alone, and so is what resuming
    a stopped one needs.
    """
    from imagetune.run_folder.prune import prune_runs

    unread: list[OSError] = []
    pruned = prune_runs(
        places or (Path("runs"),), models=models, unfinished=unfinished, dry=not yes, onerror=unread.append
    )
    # On standard error, and first: a long table would hide it.
    if unread:
        names = format_list((f"{error.filename} ({error.strerror})" for error in unread), most=3)
        echo(format_line("not read", names), err=True)
    if not pruned:
        echo("There is nothing to remove.")
        return
    rows = [(_show_path(one.removal.run), one.removal.what, _show_size(one.freed_bytes)) for one in pruned]
    echo(*format_table(rows, align="<<>", indent=0))
    total = _show_size(sum(one.freed_bytes for one in pruned))
    echo(f"{total} freed." if yes else f"{total} in all; nothing was removed, --yes removes it.")


def _show_path(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _show_size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
