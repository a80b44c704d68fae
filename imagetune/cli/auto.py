"""The command `imagetune auto`: from a folder of images to the best model that a time allows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import click
from click.core import ParameterSource

from imagetune.cli.options import Duration, overrides_option
from imagetune.cli.search import search_and_show
from imagetune.errors import DataError


class Latency(click.ParamType[float]):
    """A latency such as 5ms, as milliseconds."""

    name = "LATENCY"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the milliseconds of a text."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)ms", str(value))
        if found is None or float(found[1]) <= 0:
            self.fail(f"{value!r} is no latency; write it as 5ms", param, ctx)
        return float(found[1])


@click.command(epilog="Example: imagetune auto photos/ --time 30m")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--time", "seconds", type=Duration(), default="30m", show_default=True, help="The time that it may take.")
@click.option(
    "--prefer",
    type=click.Choice(["accuracy", "speed", "size"]),
    default="accuracy",
    show_default=True,
    help="What decides between backbones that are equally good.",
)
@click.option("--latency", type=Latency(), help="The most that one image may take on this machine, such as 5ms.")
@overrides_option
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run folder; runs/NAME-TIME-ID by default.")
@click.option("--resume", is_flag=True, help="Go on with what was begun in --run-dir; --time may be raised.")
def command(
    source: Path,
    seconds: float,
    prefer: Literal["accuracy", "speed", "size"],
    latency: float | None,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: bool,
) -> None:
    """Find the best model for the images of SOURCE in the time you have, and test it once.

    SOURCE is a folder with a folder for each class, or a table, as data.source of a recipe. Every backbone whose
    pretrained weights are on this machine is judged by linear probes at several image sizes, the best are fine-tuned,
    and the winner is refit and tested. The recipe of the winner is best.yaml in the run folder.
    """
    from imagetune.commands.auto import AutoOptions, find_auto_recipe
    from imagetune.commands.before_keras import check_inputs
    from imagetune.search.trial_process.forkserver import start_trial_forkserver

    if not source.exists():
        raise DataError("no such file or folder", where=str(source), hint="name a folder of images or a table")
    if not resume:
        check_inputs(source, overrides)
    recipe = find_auto_recipe(source, AutoOptions(seconds, prefer, latency), run_dir=run_dir, resume=resume)
    if resume and click.get_current_context().get_parameter_source("seconds") is ParameterSource.COMMANDLINE:
        overrides = (f"search.budget.hours={seconds / 3600}", *overrides)
    # Before this process imports Keras: both imports take seconds, and they run side by side.
    start_trial_forkserver()
    search_and_show(recipe, overrides, run_dir=run_dir, resume=resume)
