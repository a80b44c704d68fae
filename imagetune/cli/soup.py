"""The command `imagetune soup`: average the weights of runs."""

from __future__ import annotations

from pathlib import Path

import click

from imagetune.cli.render.lines import print_progress
from imagetune.core.quiet import quiet_start


@click.command(epilog="Example: imagetune soup runs/clipart-a runs/clipart-b runs/clipart-c --run-dir runs/soup")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, required=True)
@click.option("--run-dir", type=click.Path(path_type=Path), help="The soup's run folder; runs/NAME-TIME-ID by default.")
def command(runs: tuple[str, ...], run_dir: Path | None) -> None:
    """Average the weights of RUNs, which have one architecture and the same images, as a greedy model soup.

    The best run on validation comes first; each further run is kept if the validation metric gets no worse. The
    resulting model is tested once, and is recorded as a run like any other.
    """
    from imagetune.commands.before_keras import check_runs

    check_runs(runs)
    with quiet_start():
        from imagetune.commands import soup as soups
        from imagetune.commands.requirements import enforce_requirements
        from imagetune.training.setup.stopping import listen_for_stop
    from imagetune.cli.render.evaluation import format_evaluation, format_run, format_use
    from imagetune.cli.render.lines import echo_lines

    with listen_for_stop() as stop:
        soup = soups.soup(runs, run_dir=run_dir, say=print_progress, stop=stop)
    echo_lines(format_evaluation(soup.evaluation))
    echo_lines(format_run(soup.folder))
    # After the metrics, which say why it fails; the command to predict with it is for a soup that passes.
    enforce_requirements(soup)
    echo_lines([format_use(soup.folder)])
