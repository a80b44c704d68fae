"""`imagetune search`."""

from __future__ import annotations

from pathlib import Path

import click

from imagetune.cli.options import overrides_option, recipe_argument
from imagetune.cli.quiet import quiet_start


@click.command(epilog="Example: imagetune search recipes/search.yaml -o search.trials=10")
@recipe_argument
@overrides_option
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run folder; runs/NAME-TIME-ID by default.")
def command(recipe: Path, overrides: tuple[str, ...], run_dir: Path | None) -> None:
    """Try settings from the search spaces of RECIPE, refit the best one and test it once."""
    with quiet_start():
        from imagetune import runs, search_runs
    from imagetune.cli.results import evaluation_lines, search_lines
    from imagetune.cli.screen import Screen

    screen = Screen()
    with screen.shown():
        search = search_runs.search(recipe, overrides, run_dir=run_dir, listener=screen, say=screen.say)
    for line in search_lines(search.result.results):
        click.echo(line)
    for line in evaluation_lines(search.best.evaluation or {}):
        click.echo(line)
    click.echo(f"trials      {search.folder / 'search.csv'}")
    click.echo(f"best        {search.folder / 'best.yaml'}")
    click.echo(f"report      {search.best.folder / 'report.html'}")
    runs.enforce_requirements(search.best)
