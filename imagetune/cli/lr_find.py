"""The command `imagetune lr-find`: the learning-rate range test."""

from __future__ import annotations

from pathlib import Path

import click

from imagetune.cli.options import OutputFile, overrides_option, recipe_argument
from imagetune.cli.render.lines import echo, print_progress
from imagetune.cli.render.lr_find import format_learning_rates
from imagetune.core.quiet import quiet_start


@click.command(epilog="Example: imagetune lr-find recipe.yaml --stage top --out top.png")
@recipe_argument
@overrides_option
@click.option("--stage", metavar="NAME", help="The stage whose learning rates are tested; the first one by default.")
@click.option(
    "--out",
    type=OutputFile(".png"),
    help="Also write a plot, a PNG file.",
)
def command(recipe: Path, overrides: tuple[str, ...], stage: str | None, out: Path | None) -> None:
    """Find a learning rate for a stage of RECIPE by a learning-rate range test.

    It trains for up to 100 steps while the learning rate rises from 1e-7 to 10, with the stage's own layers, optimizer
    and augmentation, until the loss explodes. It prints two suggestions, ready for the recipe: the valley, two thirds
    into the longest fall of the loss, and the steepest slope. Without --out nothing is written.

    Each step computes the frozen layers as well, whose features a fit keeps: it may take longer than the fit itself.

    A later stage is tested from the weights that training starts with. `learning_rate: auto` in the recipe does the
    same within a run, after the stages before it, and takes the valley.
    """
    from imagetune.commands.before_keras import check_inputs

    check_inputs(recipe, overrides)
    with quiet_start():
        from imagetune.commands.lr_find import find_learning_rate
        from imagetune.training.setup.stopping import listen_for_stop

    with listen_for_stop() as stop:
        found = find_learning_rate(recipe, overrides, stage=stage, out=out, say=print_progress, stop=stop)
    echo(*format_learning_rates(found, out))
    _ = found.suggestion  # raises an error where the loss never fell, after the plot that shows it
