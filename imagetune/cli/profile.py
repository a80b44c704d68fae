"""The command `imagetune profile`: where training time goes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imagetune.cli.options import json_option, overrides_option, recipe_argument
from imagetune.cli.render.lines import echo, echo_text, print_progress
from imagetune.core.quiet import quiet_start


@click.command(epilog="Example: imagetune profile recipe.yaml -o data.workers=4")
@recipe_argument
@overrides_option
@json_option
def command(recipe: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Measure where the training time of RECIPE goes, and which setting would save most of it.

    About half a minute is measured on some of the training images: reading, decoding and augmenting on one core, each
    transform alone, loading as configured, and for each stage the forward pass of its frozen layers and the training
    step. From these follow the bottleneck and a forecast of the time of each epoch and of the whole training.

    Keep the machine idle meanwhile. No run, no decoded images and no features are left behind.
    """
    from imagetune.commands.before_keras import check_inputs

    check_inputs(recipe, overrides)
    with quiet_start():
        from imagetune.commands.profile import profile
        from imagetune.training.setup.stopping import listen_for_stop
    from imagetune.cli.render.profile import format_profile

    with listen_for_stop() as stop:
        found = profile(recipe, overrides, say=print_progress, stop=stop)
    if as_json:
        echo_text(json.dumps(found.document(), ensure_ascii=False, indent=2))
        return
    echo(*format_profile(found))
