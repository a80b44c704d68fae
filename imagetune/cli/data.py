"""The command `imagetune data`: audit and preview images."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imagetune.cli.options import OutputFile, json_option, overrides_option, recipe_argument
from imagetune.cli.render.lines import echo, echo_lines, echo_text


def _list_codes(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    # Shells complete with resilient parsing, in which nothing may be printed.
    if not wanted or context.resilient_parsing:
        return
    from imagetune.cli.render.audit import format_codes

    echo(*format_codes())
    context.exit()


@click.group(epilog="Example: imagetune data check images/")
def command() -> None:
    """Check and preview images."""


@command.command("check", epilog="Example: imagetune data check recipe.yaml --json")
@click.argument("source", type=click.Path(path_type=Path), metavar="RECIPE_OR_FOLDER")
@overrides_option
@json_option
@click.option(
    "--codes",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_codes,
    help="List the codes of findings, for data.audit.fail_on and data.audit.allow, and exit.",
)
@click.option("--page", type=OutputFile(".html", ".htm"), help="Also write an HTML page that shows the images.")
@click.option(
    "--fix",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write cleaned.csv, a source without the faulty images, and changes.csv into DIR. No image is changed.",
)
def check(source: Path, overrides: tuple[str, ...], as_json: bool, page: Path | None, fix: Path | None) -> None:
    """Report problems with the files, duplicates, labels and splits of a recipe's images, or of a folder or table.

    Every image is opened. The exit code is 3 if a finding is an error, so that nothing can be trained.
    """
    from imagetune.cli.render.audit import format_audit, format_cleaned_source
    from imagetune.commands import data

    checked = data.check(source, overrides)
    if page is not None:
        checked.write_page(page)
    if not as_json:
        # Before --fix, which may fail: the findings also say why nothing can be fixed.
        echo_lines(format_audit(checked.catalog, checked.audit))
    fixed = None if fix is None else checked.fix(fix)
    if as_json:
        document = checked.document() | ({} if fixed is None else {"fixed": fixed.document()})
        echo_text(json.dumps(document, ensure_ascii=False, indent=2))
    elif fixed is not None:
        echo_lines(("", *format_cleaned_source(fixed)))
    # With --fix the exit code is that of the cleaned source, which is what will be trained on.
    (checked if fixed is None else fixed.check).enforce()


@command.command("preview", epilog="Example: imagetune data preview recipe.yaml --out sheet.png")
@recipe_argument
@overrides_option
@click.option("--out", required=True, type=OutputFile(".png"), help="The PNG file to write.")
@click.option("--images", default=16, show_default=True, type=click.IntRange(1, 64), help="Number of images.")
@click.option(
    "--copies", default=5, show_default=True, type=click.IntRange(1, 16), help="Augmented copies of each image."
)
def preview(recipe: Path, overrides: tuple[str, ...], out: Path, images: int, copies: int) -> None:
    """Draw training images of RECIPE beside augmented copies of them on one sheet."""
    from imagetune.commands import data

    data.preview(recipe, overrides, out=out, images=images, copies=copies)
    echo(out)
