"""`imagetune weights`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from imagetune.model.imagenet import WeightsStatus


@click.group(epilog="Example: imagetune weights fetch resnet50 vgg16")
def command() -> None:
    """List, fetch and check pretrained weights; fetch them where there is a network, then carry the cache along."""


@command.command("list", epilog="Example: imagetune weights list")
def list_weights() -> None:
    """List the ImageNet weights of every backbone, and where they are or belong."""
    from imagetune.model.backbones import all_backbones
    from imagetune.model.imagenet import weights_status

    _show(weights_status(backbone, verify=False) for backbone in all_backbones())


@command.command("fetch", epilog="Example: imagetune weights fetch resnet50")
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Download the ImageNet weights of NAMES into Keras's cache and check them."""
    from imagetune.model.imagenet import fetch_weights

    _show(fetch_weights(names))


@command.command("check", epilog="Example: imagetune weights check resnet50")
@click.argument("names", nargs=-1)
def check(names: tuple[str, ...]) -> int:
    """Hash the weights of NAMES, by default of all that are at hand; exit 5 if one is absent or damaged."""
    from imagetune.model.imagenet import check_weights

    statuses = check_weights(names)
    _show(statuses)
    return 0 if all(status.state in ("packaged", "cached") for status in statuses) else 5


def _show(statuses: Iterable[WeightsStatus]) -> None:
    for status in statuses:
        detail = f"  {status.detail}" if status.detail else ""
        click.echo(f"{status.backbone:<22}{status.state:<10}{status.path}{detail}")
