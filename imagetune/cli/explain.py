"""The command `imagetune explain`: saliency maps of any images."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from imagetune.cli.options import json_option, run_argument
from imagetune.cli.render.lines import echo, print_progress
from imagetune.cli.render.predictions import format_explanation
from imagetune.core.quiet import quiet_start


@click.command(epilog="Example: imagetune explain runs/clipart-20261121-101500-3f2a holiday/ --out explained/")
@run_argument
@click.argument("paths", nargs=-1, required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to write JPEG files to.")
@click.option(
    "--class",
    "class_name",
    metavar="NAME",
    help="The class to explain; by default the predicted one, or the most probable of several labels. For regression:"
    " higher (the default) or lower.",
)
@json_option
def command(run: str, paths: tuple[str, ...], out: Path, class_name: str | None, as_json: bool) -> None:
    """Draw saliency maps: which regions of the images in PATHS raise the score of a class, by the model of RUN.

    PATHS are files, folders and patterns. Each file in --out has three panels: the image as the model receives it; a
    Grad-CAM map, from gradients; an occlusion map, from the drop of the score when a region is covered. Warm regions
    raise the score. Agreement is the rank correlation of both maps: where it is low, trust neither. JSON has a line for
    each image.
    """
    from imagetune.commands.before_keras import check_run_inputs

    check_run_inputs((run,), paths)
    with quiet_start():
        from imagetune.commands.explain import explain

    for explanation in explain(run, paths, out=out, target=class_name, say=print_progress):
        if as_json:
            echo(json.dumps(asdict(explanation), ensure_ascii=False))
        else:
            echo(format_explanation(explanation))
