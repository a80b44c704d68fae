"""The command `imagetune fit`: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from imagetune.cli.options import max_time_option, overrides_option, recipe_argument
from imagetune.core.quiet import quiet_start


@click.command(epilog="Example: imagetune fit recipes/quickstart.yaml -o train.batch_size=16")
@recipe_argument
@overrides_option
@click.option("--run-dir", type=click.Path(path_type=Path), help="The run folder; runs/NAME-TIME-ID by default.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the run in --run-dir where it was stopped; begin it where there is none.",
)
@max_time_option
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check everything, train on one batch, print the plan with estimated times, and write nothing.",
)
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: bool,
    max_seconds: float | None,
    dry_run: bool,
) -> None:
    """Fine-tune a model as RECIPE says, test it once, and record all of it in a run folder with a report.

    RECIPE may also be a folder of images, with a folder for each class, or a table of paths and labels: then everything
    has its default. The recipe is written into the run folder.

    A run that was stopped or killed goes on by the same command with --run-dir and --resume, from its last checkpoint
    (train.commit_minutes), to the same result. A finished run in --run-dir is shown again. Exit code 75 says that the
    command shall be run again: after --max-time, SIGUSR1, and with --resume also SIGTERM.
    """
    if resume and run_dir is None:
        raise click.UsageError("--resume needs --run-dir: the folder of the run to go on with")
    from imagetune.commands.before_keras import check_inputs

    check_inputs(recipe, overrides)
    # Imported inside the command: Keras takes seconds, for which `--help` and a wrong option need not wait.
    with quiet_start():
        from imagetune.commands.fit import fit, plan
        from imagetune.commands.requirements import enforce_requirements
        from imagetune.training.setup.stopping import listen_for_requeue, listen_for_stop
    from imagetune.cli.render.evaluation import format_evaluation, format_plan, format_run, format_use
    from imagetune.cli.render.lines import echo_lines
    from imagetune.cli.render.progress import Screen

    screen = Screen()
    if dry_run:
        with listen_for_stop() as stop:
            planned = plan(recipe, overrides, say=screen.say, stop=stop)
        echo_lines(format_plan(*planned))
        return
    # The bar is the outer one: it is taken from the terminal also when a signal ends the training.
    with screen.shown(), listen_for_requeue(resume=resume, max_seconds=max_seconds) as stop:
        result = fit(recipe, overrides, run_dir=run_dir, resume=resume, listener=screen, say=screen.say, stop=stop)
    echo_lines(format_evaluation(result.evaluation))
    echo_lines(format_run(result.folder))
    # After the metrics: a missed requirement is an exit code for scripts, and people want to see why.
    enforce_requirements(result)
    echo_lines([format_use(result.folder)])
