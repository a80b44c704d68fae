"""The command `imagetune export`: a model for another runtime, with a comparison of what it predicts there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagetune.cli.options import json_option, run_argument
from imagetune.cli.render.lines import echo, echo_lines, print_progress
from imagetune.core.messages import say_nothing
from imagetune.core.quiet import quiet_start

if TYPE_CHECKING:
    from imagetune.export.formats import Format, Quantization


@click.command(
    epilog="Example: imagetune export runs/clipart-20261121-101500-3f2a --format litert --out clipart-litert/"
)
@run_argument
@click.option("--format", type=click.Choice(["saved_model", "litert", "onnx"]), required=True, help="The file format.")
@click.option(
    "--quantize",
    type=click.Choice(["none", "fp16", "dynamic", "int8"]),
    default="none",
    show_default=True,
    help="The number type: none keeps float32; int8 is calibrated on training images.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The folder to make.")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 100),
    default=1.0,
    show_default=True,
    help="The drop of accuracy, in percentage points, that the compared images must rule out.",
)
@json_option
def command(run: str, format: Format, quantize: Quantization, out: Path, max_drop: float, as_json: bool) -> None:
    """Export the model of RUN to a folder with the model, example.py, manifest.json and README.md.

    The export predicts images that the model has not learned from (validation, or test after a refit) by its own
    runtime and example.py, and is compared with the Keras model: parity.html and parity.json say how. It is accepted
    where the predictions hardly differ, or where the 95% interval of the accuracy's difference rules out a drop by
    --max-drop. Else it is refused (exit code 9), also where there are too few images to rule that out, and lies
    in the folder refused/ of --out. A LiteRT file with int8 throughout that is refused is tried again with its
    costliest layers in float32.

    `python example.py` in the folder predicts a sample image and says whether that works there as it did here.
    """
    from imagetune.commands.before_keras import check_export
    from imagetune.export.formats import Target

    check_export(run, Target(format, quantize))
    with quiet_start():
        from imagetune.commands.export import export
    from imagetune.cli.render.export import format_parity

    say = say_nothing if as_json else print_progress
    document = export(run, format=format, quantize=quantize, out=out, max_drop=max_drop, say=say)
    if as_json:
        echo(json.dumps(document, ensure_ascii=False))
    else:
        echo_lines(format_parity(document, out))
