"""The command `imagetune weights`: pretrained weights."""

from __future__ import annotations

import click

from imagetune.cli.render.lines import echo
from imagetune.cli.render.models import format_weights


@click.group(epilog="Example: imagetune weights fetch resnet50 vgg16")
def command() -> None:
    """List, fetch and check pretrained weights.

    Without a network, fetch them on a machine that has one, and copy its cache.
    """


@command.command("list", epilog="Example: imagetune weights list")
def list_weights() -> None:
    """List the ImageNet weights of all backbones, with their state and their files."""
    from imagetune.model.backbones.table import list_backbones
    from imagetune.model.weights.imagenet import weights_status

    # Not verified: hashing every file would take longer than a list may; `check` does it.
    echo(*format_weights(weights_status(backbone, verify=False) for backbone in list_backbones()))


@command.command("fetch", epilog="Example: imagetune weights fetch resnet50")
@click.argument("names", nargs=-1, required=True)
def fetch(names: tuple[str, ...]) -> None:
    """Download the ImageNet weights of the backbones NAMES, and verify them.

    They are stored in Keras's cache, ~/.keras/models or $KERAS_HOME/models.
    """
    from imagetune.model.weights.imagenet import fetch_weights

    echo(*format_weights(fetch_weights(names)))


@command.command("check", epilog="Example: imagetune weights check resnet50")
@click.argument("names", nargs=-1)
def check(names: tuple[str, ...]) -> int:
    """Verify the SHA-256 of the ImageNet weights of the backbones NAMES; of all available ones by default.

    The exit code is 5 if weights of NAMES are missing or corrupted.
    """
    from imagetune.model.weights.imagenet import check_weights

    statuses = check_weights(names)
    echo(*format_weights(statuses))
    return 0 if all(status.state in ("packaged", "cached") for status in statuses) else 5
