"""The command `imagetune evaluate`: test a finished run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from imagetune.cli.options import json_option, run_argument, with_option
from imagetune.cli.render.lines import echo, print_progress
from imagetune.core.quiet import quiet_start

if TYPE_CHECKING:
    from imagetune.runs.lineage import SeenPolicy


@click.command(epilog="Example: imagetune evaluate runs/clipart-20261121-101500-3f2a --json")
@run_argument
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Test on other labelled images: a folder of class folders or a table.",
)
@with_option
@click.option(
    "--skip-seen",
    "seen",
    flag_value="skip",
    help="Leave out images that a run was trained or selected with, which are refused otherwise; test on the others.",
)
@click.option(
    "--allow-seen",
    "seen",
    flag_value="allow",
    help="Test on such images, too. No requirement is met then.",
)
@click.option(
    "--robustness",
    is_flag=True,
    help="Test on corrupted versions of the test images instead, and add the result to the run's evaluation and report,"
    " also in MLflow.",
)
@click.option(
    "--require",
    "requirements",
    multiple=True,
    metavar="METRIC:THRESHOLD",
    help="A further requirement, such as balanced_accuracy:lower_bound=0.85; repeatable.",
)
@json_option
def command(
    run: str,
    data: Path | None,
    others: tuple[str, ...],
    seen: SeenPolicy | None,
    robustness: bool,
    requirements: tuple[str, ...],
    as_json: bool,
) -> None:
    """Test RUN, a run folder or a runs:/ or models:/ address, on its test images.

    The exit code is 10 if a requirement of the recipe's evaluate.require is missed, also with --data; it is 3 if other
    images are among those that a run was trained or selected with, or near-duplicates of them (but see --skip-seen).

    With --robustness the test images are corrupted: by the 15 common corruptions, rotation, JPEG compression and low
    resolution, or by those of the recipe's evaluate.robustness. Each corruption and severity takes a forward pass over
    up to evaluate.robustness.images images.
    """
    from imagetune.commands.before_keras import check_run_inputs
    from imagetune.recipe.requirements import parse_requirement

    # Before Keras is imported: a mistake in an option is said at once.
    require = [parse_requirement(requirement) for requirement in requirements]
    check_run_inputs((run, *others), () if data is None else (data,))
    with quiet_start():
        from imagetune.commands.evaluate import evaluate
        from imagetune.commands.requirements import check_requirements
    from imagetune.cli.render.evaluation import format_evaluation
    from imagetune.cli.render.lines import echo_lines
    from imagetune.cli.render.robustness import build_tenth_callback, format_robustness

    document = evaluate(
        run,
        others=others,
        data=data,
        require=require,
        seen=seen or "refuse",
        robustness=robustness,
        say=print_progress,
        progress=build_tenth_callback(print_progress),
    )
    if as_json:
        echo(json.dumps(document, ensure_ascii=False))
    elif robustness:
        echo_lines(format_robustness(document["robustness"]))
    else:
        echo_lines(format_evaluation(document))
    # A robustness test adds to an evaluation whose requirements were checked when it was made.
    if not robustness:
        # Last: the metrics are printed, also where a requirement makes the exit code 10.
        check_requirements(document, where=run)
