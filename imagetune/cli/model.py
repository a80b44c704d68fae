"""The command `imagetune model`: list backbones and their layers."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from imagetune.cli.options import json_option
from imagetune.cli.render.lines import echo
from imagetune.core.quiet import quiet_start


@click.group(epilog="Example: imagetune model layers resnet50 --unfreeze 'last 2 blocks'")
def command() -> None:
    """List backbones and their layers."""


@command.command("list", epilog="Example: imagetune model list")
@json_option
def list_models(as_json: bool) -> None:
    """List all backbones.

    The columns are the number of parameters, the published top-1 accuracy on ImageNet, the default image size in
    pixels, where the ImageNet weights are, and the licence that they were published under.
    """
    from imagetune.cli.render.models import format_models
    from imagetune.model.describe import list_model_rows

    rows = list_model_rows()
    if as_json:
        echo(json.dumps([asdict(row) for row in rows]))
        return
    echo(*format_models(rows))


@command.command("layers", epilog="Example: imagetune model layers vgg16 --unfreeze block5 --all")
@click.argument("backbone")
@click.option(
    "--unfreeze",
    default="none",
    show_default=True,
    metavar="BLOCKS",
    help="The blocks to unfreeze, as a stage's `unfreeze` in a recipe.",
)
@click.option("--all", "every_layer", is_flag=True, help="Also show every layer with weights.")
def layers(backbone: str, unfreeze: str, every_layer: bool) -> None:
    """List the blocks of BACKBONE from input to output, each with its layers, parameters and trainable parameters."""
    from imagetune.cli.render.models import format_layers
    from imagetune.model.describe import list_layer_rows

    with quiet_start():
        import imagetune.model.build  # noqa: F401  (imports Keras, which layer_rows needs, without its messages)
    rows = list_layer_rows(backbone, unfreeze)
    echo(*format_layers(rows, every_layer=every_layer))
