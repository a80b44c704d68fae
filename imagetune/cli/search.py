"""`imagetune search`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click

from imagetune.cli.options import overrides_option, recipe_argument
from imagetune.cli.quiet import quiet_start


@click.command(epilog="Example: imagetune search recipes/search.yaml -o search.trials=10")
@recipe_argument
@overrides_option
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run folder; runs/NAME-TIME-ID by default.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the search in --run-dir: ended trials stand, interrupted ones run again. With more search.trials"
    " than before, a finished search goes on.",
)
def command(recipe: Path, overrides: tuple[str, ...], run_dir: Path | None, resume: bool) -> None:
    """Try settings from the search spaces of RECIPE, refit the best one and test it once."""
    from imagetune.recipe.loading import load_recipe
    from imagetune.search_runs.forkserver import warm_up_trials

    if load_recipe(recipe, overrides).recipe.search.executor == "local":
        warm_up_trials()  # it imports Keras for all trials while this process does so for itself
    with quiet_start():
        from imagetune import runs
        from imagetune.search_runs import session
    from imagetune.cli.lines import echo_lines
    from imagetune.cli.results import evaluation_lines
    from imagetune.cli.screen import Screen
    from imagetune.cli.search_lines import file_lines, nothing_left_line, search_lines
    from imagetune.cli.search_screen import SearchScreen

    screen = SearchScreen(Screen())
    with screen.shown():
        search = session.search(
            recipe,
            overrides,
            run_dir=run_dir,
            resume=resume,
            listener=screen.refit,
            watcher=screen,
            say=screen.say,
        )
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in search_lines(search, width=width):
        click.echo(line)
    echo_lines(evaluation_lines(search.best.evaluation or {}))
    echo_lines(file_lines(search.folder, search.best.folder))
    if not search.best.fresh and not search.added:
        click.echo(nothing_left_line(search.recipe.search.algorithm))
    runs.enforce_requirements(search.best)
