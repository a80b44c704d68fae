"""`imagetune evaluate`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from imagetune.cli.options import json_option, run_argument, with_option
from imagetune.cli.quiet import quiet_start


@click.command(epilog="Example: imagetune evaluate runs/clipart-20261121-101500-3f2a --json")
@run_argument
@click.option(
    "--data", type=click.Path(path_type=Path), help="Other labelled pictures: a folder of class folders or a table."
)
@with_option
@json_option
def command(run: str, data: Path | None, others: tuple[str, ...], as_json: bool) -> None:
    """Test RUN, a run folder or a runs:/ or models:/ address, on its test pictures."""
    with quiet_start():
        from imagetune import ensembles, runs
    from imagetune.cli.results import evaluation_lines

    document = ensembles.evaluate((run, *others), data=data) if others else runs.evaluate(run, data=data)
    if as_json:
        click.echo(json.dumps(document, ensure_ascii=False))
        return
    for line in evaluation_lines(document):
        click.echo(line)
