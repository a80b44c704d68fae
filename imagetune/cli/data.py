"""`imagetune data`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imagetune.cli.options import json_option, overrides_option, recipe_argument


@click.group(epilog="Example: imagetune data check pictures/")
def command() -> None:
    """Check and preview pictures."""


@command.command("check", epilog="Example: imagetune data check recipe.yaml --json")
@click.argument("source", type=click.Path(path_type=Path), metavar="RECIPE_OR_FOLDER")
@overrides_option
@json_option
def check(source: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Open every picture and say what is wrong: files, duplicates, labels, splits."""
    from imagetune import data_check

    checked = data_check.check(source, overrides)
    if as_json:
        click.echo(json.dumps(checked.document(), ensure_ascii=False, indent=2))
    else:
        for line in checked.lines():
            click.echo(line)
    checked.enforce()


@command.command("preview", epilog="Example: imagetune data preview recipe.yaml --out sheet.png")
@recipe_argument
@overrides_option
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The PNG file to write.")
@click.option("--pictures", default=16, show_default=True, type=click.IntRange(1, 64), help="Pictures on the sheet.")
@click.option("--views", default=5, show_default=True, type=click.IntRange(1, 16), help="Augmented views of each.")
def preview(recipe: Path, overrides: tuple[str, ...], out: Path, pictures: int, views: int) -> None:
    """Draw originals and augmented views of training pictures as one sheet."""
    from imagetune import data_check

    data_check.preview(recipe, overrides, out=out, pictures=pictures, views=views)
    click.echo(out)
