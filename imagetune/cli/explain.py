"""`imagetune explain`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from imagetune.cli.options import json_option, run_argument
from imagetune.cli.quiet import quiet_start
from imagetune.cli.render.predictions import explanation_line


@click.command(epilog="Example: imagetune explain runs/clipart-20261121-101500-3f2a holiday/ --out looks/")
@run_argument
@click.argument("paths", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the pictures.")
@click.option(
    "--class",
    "target",
    metavar="NAME",
    help="The class to explain; by default each picture's answer; of several labels the likeliest. Of numbers: higher"
    " (the default) or lower.",
)
@json_option
def command(run: str, paths: tuple[str, ...], out: Path, target: str | None, as_json: bool) -> None:
    """Show what in the pictures in PATHS (files, folders, patterns) speaks for a class, by the model of RUN.

    Each file in --out has three panels: the picture as the model sees it; Grad-CAM, by gradients; occlusion, by what is
    lost when a part is covered. Warm places speak for the class. Agreement is the rank correlation of both maps: where
    it is low, trust neither. JSON has a line a picture.
    """
    with quiet_start():
        from imagetune.commands.explain import explain
        from imagetune.data.catalog import none_read

    read = False
    for found in explain(run, paths, out=out, target=target):
        read |= found.error is None
        if as_json:
            click.echo(json.dumps(asdict(found), ensure_ascii=False))
        else:
            click.echo(explanation_line(found))
    if not read:
        raise none_read()
