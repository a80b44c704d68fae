"""The command `imagetune search`: hyperparameter search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagetune.cli.options import max_time_option, overrides_option, recipe_argument
from imagetune.cli.render.lines import echo
from imagetune.core import run_files
from imagetune.core.quiet import quiet_start

if TYPE_CHECKING:
    from imagetune.recipe.loading import RecipeSource
    from imagetune.search.session import Search


@click.command(epilog="Example: imagetune search recipes/search.yaml -o search.trials=10")
@recipe_argument
@overrides_option
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run folder; runs/NAME-TIME-ID by default.")
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the search in --run-dir: finished trials are kept, and interrupted ones run again. A finished search"
    " continues if search.trials is larger than before.",
)
@max_time_option
def command(
    recipe: Path, overrides: tuple[str, ...], run_dir: Path | None, resume: bool, max_seconds: float | None
) -> None:
    """Search the spaces of RECIPE for the best settings, train a model with them, and test it once."""
    from imagetune.commands.before_keras import check_inputs, start_trial_processes
    from imagetune.search.records.folder import check_resumable

    check_inputs(recipe, overrides)
    if resume:
        check_resumable(run_dir)
    # Before this process imports Keras: both imports take seconds, and they run side by side.
    start_trial_processes(recipe, overrides)
    search_and_show(recipe, overrides, run_dir=run_dir, resume=resume, max_seconds=max_seconds)


def search_and_show(
    recipe: RecipeSource,
    overrides: tuple[str, ...],
    *,
    run_dir: Path | None,
    resume: bool,
    max_seconds: float | None = None,
) -> None:
    """Run a search with its progress on the screen, and print its result.

    Args:
        recipe: The recipe's file, or its content.
        overrides: Keys to set, as after ``-o``.
        run_dir: The run folder; None makes one.
        resume: Whether to go on with the search in it.
        max_seconds: Time after which it stops, to be gone on with; None for no limit.

    Raises:
        ImagetuneError: As from `imagetune.commands.search.search`.
    """
    with quiet_start():
        from imagetune.commands.search import search
        from imagetune.training.setup.stopping import listen_for_requeue
    from imagetune.cli.render.progress import Screen
    from imagetune.cli.render.search_progress import SearchScreen

    screen = SearchScreen(Screen())
    with screen.shown(), listen_for_requeue(resume=resume, max_seconds=max_seconds) as stop:
        found = search(
            recipe,
            overrides,
            run_dir=run_dir,
            resume=resume,
            listener=screen.refit,
            watcher=screen,
            say=screen.say,
            stop=stop,
        )
    _show_search(found, recipe if isinstance(recipe, Path) else found.folder / run_files.RECIPE)


def _show_search(found: Search, recipe: Path) -> None:
    """Print the result of a search: trials, winner, test and files.

    Raises:
        GateError: The winner's test missed a requirement.
    """
    from imagetune.cli.render.evaluation import format_evaluation
    from imagetune.cli.render.lines import echo_lines, screen_width
    from imagetune.cli.render.search import format_files, format_nothing_left, format_search
    from imagetune.commands.requirements import enforce_requirements

    echo_lines(format_search(found, recipe_file=recipe, width=screen_width()))
    echo_lines(format_evaluation(found.best.evaluation or {}))
    echo_lines(format_files(found.folder, found.best.folder))
    # A resumed search that had ended already would otherwise look as if --resume had done something.
    if not found.best.fresh and not found.added:
        config = found.recipe.search
        echo(format_nothing_left(config.algorithm, exhausted=found.exhausted, hours=config.budget.hours))
    # Last, as its error ends the command: the files and the metrics are on the screen by then.
    enforce_requirements(found.best)
