"""`imagetune lr-find`."""

from __future__ import annotations

from pathlib import Path

import click

from imagetune.cli.options import overrides_option, recipe_argument
from imagetune.cli.quiet import quiet_start
from imagetune.cli.render.lines import labelled, say


@click.command(epilog="Example: imagetune lr-find recipe.yaml --stage top --out top.png")
@recipe_argument
@overrides_option
@click.option("--stage", metavar="NAME", help="The stage to test; the first one by default.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("lr-find.png"),
    show_default=True,
    help="The PNG file to write.",
)
def command(recipe: Path, overrides: tuple[str, ...], stage: str | None, out: Path) -> None:
    """Measure which learning rate suits a stage of RECIPE.

    Trains for up to 100 steps while the rate rises from 1e-7 to 10, on the stage's own layers, optimizer and augmented
    pictures, until the loss explodes. Prints two suggestions, ready for the recipe: the valley, two thirds into the
    longest fall of the loss, and its steepest slope. Writes a plot with both, and nothing else.

    A later stage is tested from the weights that training starts with. `learning_rate: auto` in the recipe does the
    same as part of a run, after the stages before it, and takes the valley.
    """
    with quiet_start():
        from imagetune.commands.lr_find import find_learning_rate
        from imagetune.training.stopping import listen_for_stop

    with listen_for_stop() as stop:
        found = find_learning_rate(recipe, overrides, stage=stage, out=out, say=say, stop=stop)
    for name, rate in (("valley", found.valley), ("steepest slope", found.steepest)):
        if rate is not None:
            click.echo(f"learning_rate: {rate:.2g}".ljust(28) + f"# {name} of stage {found.stage}")
    click.echo(labelled("plot", str(out)))
    _ = found.suggestion  # says so where the loss fell nowhere; the plot shows it
