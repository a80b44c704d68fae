"""The commands about what a finished run has left: `imagetune report` and `imagetune verify`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagetune.cli.options import json_option, run_argument
from imagetune.cli.render.lines import echo, echo_lines, format_line, print_progress
from imagetune.core.quiet import quiet_start
from imagetune.core.text import format_count

if TYPE_CHECKING:
    from imagetune.commands.verify import Verification

# A page of them says no more; --json has all.
_MOST_SHOWN = 30


@click.command(epilog="Example: imagetune report runs/clipart-20261121-101500-3f2a")
@run_argument
def report(run: str) -> None:
    """Write report.html of RUN, the folder of a run or a search, again, and update its copy in MLflow if it has one."""
    with quiet_start():
        from imagetune.commands import report as command

    echo(command.report(run, say=print_progress))


@click.command(epilog="Example: imagetune verify runs/clipart-20261121-101500-3f2a --json")
@run_argument
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Where the images are now, if they have moved: the folder or table of data.source.",
)
@click.option(
    "--every-image",
    is_flag=True,
    help="Predict all training and validation images again; by default all test images and 32 of each of the others.",
)
@json_option
def verify(run: str, data: Path | None, every_image: bool, as_json: bool) -> None:
    """Verify RUN, a run folder or a runs:/ or models:/ address, or the folder of a search with its winner.

    Every file is compared with the hash that was recorded when the run finished, and so are the images and the
    pretrained weights; the metrics with their intervals are computed again from the recorded predictions, and these
    from the model and the images. What differs is named.

    The exit code is 0 if everything holds; 9 if a file, a metric or a prediction differs; 3 if only images or
    pretrained weights have changed, or something could not be compared, such as images that are gone.
    """
    with quiet_start():
        from imagetune.commands import verify as command

    found = command.verify(run, data=data, every_image=every_image, say=print_progress)
    if as_json:
        echo(json.dumps(found.to_dict(), ensure_ascii=False))
    else:
        echo_lines(_format_verification(found))
    command.require_verified(found, where=run)


def _format_verification(found: Verification) -> Iterator[str]:
    """Yield what was verified, each difference, and what could not be compared."""
    counts = found.verified
    yield format_line(
        "verified",
        f"{format_count(counts['files'], 'file')}, {format_count(counts['images'], 'image')}, "
        f"{format_count(counts['weights'], 'file')} of pretrained weights, {counts['metrics']} numbers of "
        f"evaluation.json, {format_count(counts['predictions'], 'prediction')}",
    )
    differences = (*found.differences, *found.changed_inputs)
    for one in differences[:_MOST_SHOWN]:
        yield format_line("differs", f"{one.where}: expected {one.expected}, found {one.found}")
    if len(differences) > _MOST_SHOWN:
        yield format_line("differs", f"{len(differences) - _MOST_SHOWN} more; --json lists all")
    yield from (format_line("unchecked", what) for what in found.unchecked)
    yield from (format_line("note", what) for what in found.notes)
    if found.holds:
        yield format_line("holds", "everything is as the run recorded it")
