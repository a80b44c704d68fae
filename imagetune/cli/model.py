"""`imagetune model`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from imagetune.cli.options import json_option
from imagetune.cli.quiet import quiet_start


@click.group(epilog="Example: imagetune model layers resnet50 --unfreeze 'last 2 blocks'")
def command() -> None:
    """List backbones and their layers."""


@command.command("list", epilog="Example: imagetune model list")
@json_option
def list_models(as_json: bool) -> None:
    """List all backbones: parameters, published top-1, usual picture size, weights at hand or not."""
    from imagetune.model.describe import model_rows

    rows = model_rows()
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows]))
        return
    click.echo(f"{'backbone':<22}{'parameters':>12}{'top-1 %':>9}{'pixels':>8}  weights")
    for row in rows:
        top1 = f"{row.top1:.1f}" if row.top1 is not None else "-"
        click.echo(f"{row.name:<22}{row.parameters / 1e6:>10.1f} M{top1:>9}{row.image_size:>8}  {row.weights}")


@command.command("layers", epilog="Example: imagetune model layers vgg16 --unfreeze block5 --all")
@click.argument("backbone")
@click.option("--unfreeze", default="none", show_default=True, help="Show what this `unfreeze` would train.")
@click.option("--all", "every_layer", is_flag=True, help="Also show every layer with weights.")
def layers(backbone: str, unfreeze: str, every_layer: bool) -> None:
    """Show the blocks of BACKBONE from input to output, and what would train."""
    from imagetune.model.describe import layer_rows

    with quiet_start():
        import imagetune.model.build  # noqa: F401  (starts Keras, which layer_rows needs)
    rows = layer_rows(backbone, unfreeze)
    click.echo(f"{'block':<18}{'layers':>8}{'parameters':>14}{'would train':>14}")
    for row in rows:
        click.echo(f"{row.block:<18}{len(row.layers):>8}{row.parameters:>14,}{row.trainable_parameters:>14,}")
        for layer in row.layers if every_layer else ():
            click.echo(f"  {layer}{'  (would train)' if layer in row.trainable_layers else ''}")
    total, trained = (sum(getattr(row, key) for row in rows) for key in ("parameters", "trainable_parameters"))
    click.echo(f"{'in all':<18}{sum(len(row.layers) for row in rows):>8}{total:>14,}{trained:>14,}")
