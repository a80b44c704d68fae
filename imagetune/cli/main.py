"""The command line: commands, exit codes and how errors are shown."""

from __future__ import annotations

import gc
import importlib
import signal
import sys
import traceback
from types import FrameType
from typing import Any

import click

import imagetune.data  # noqa: F401  (data workers import this module first, and it must settle things before Grain)
from imagetune.cli.render.console import end_by_pipe, find_output_error, guard_streams
from imagetune.cli.render.lines import echo
from imagetune.core.environment import settle_process_environment
from imagetune.core.files import convert_system_errors
from imagetune.core.processes import is_short_of_memory
from imagetune.core.secrets import redact_text
from imagetune.core.text import find_similar_name
from imagetune.core.version import read_version, refuse_namesake
from imagetune.errors import ImagetuneError, ResourceError

_MEMORY_HINT = "close other programs, raise the limit on memory (ulimit -v), or use smaller images and batches"
# The order is that in which people meet the commands. The help texts stand here, and not in the commands' modules, so
# that `imagetune --help` imports none of them.
COMMANDS = {
    "fit": "Fine-tune a model, test it once and record the run.",
    "auto": "Find the best model for a folder of images in the time you have.",
    "search": "Try many settings of a recipe, refit the best one and test it once.",
    "soup": "Average the weights of several runs into one model.",
    "evaluate": "Test a run again, on its own test images or on others.",
    "compare": "Compare runs on the same test images, with a significance test.",
    "predict": "Predict the labels of images.",
    "explain": "Show which regions of an image a prediction depends on.",
    "export": "Export a model to LiteRT, ONNX or SavedModel, and prove that it predicts the same.",
    "serve": "Serve a model over HTTP.",
    "report": "Write the report of a run again.",
    "verify": "Verify that a run's files, metrics and predictions are what it recorded.",
    "lr-find": "Find a learning rate by a range test.",
    "profile": "Measure where training time goes, and which setting would save most of it.",
    "data": "Audit and preview images.",
    "model": "List backbones and their layers.",
    "weights": "List, fetch and check pretrained weights.",
    "recipe": "List, copy, show, validate and compare recipes.",
    "runs": "Free the disk of what ended runs no longer need.",
    "sync": "Send to MLflow what a run has not sent yet.",
    "ui": "Open MLflow's UI on the runs.",
}
# Module and name of the commands that have no module of their own.
_TOGETHER = {
    "report": ("report", "report"),
    "verify": ("report", "verify"),
    "sync": ("tracking", "sync"),
    "ui": ("tracking", "ui"),
}


class LazyGroup(click.Group):
    """A group of commands whose modules are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in their order in the help."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a name, imported from its module; None where there is none."""
        if cmd_name not in COMMANDS:
            self._refuse(ctx, cmd_name)
            return None
        # Only this command's module: neither `imagetune --help` nor a wrong name has to wait for an import.
        name, attribute = _TOGETHER.get(cmd_name, (cmd_name.replace("-", "_"), "command"))
        command: click.Command = getattr(importlib.import_module(f"imagetune.cli.{name}"), attribute)
        return command

    def _refuse(self, ctx: click.Context, word: str) -> None:
        # Click knows no names to suggest, as no command is imported yet; words with a dash are options to it.
        similar = find_similar_name(word, COMMANDS)
        if similar and not word.startswith("-") and not ctx.resilient_parsing:
            ctx.fail(f"No such command {word!r}. Did you mean {similar!r}?")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with: imagetune recipe copy quickstart . && imagetune fit quickstart.yaml",
)
@click.version_option(read_version(), prog_name="imagetune")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """Fine-tune image models from one recipe file, with an honest test, tracking in MLflow and a report."""


def main() -> None:
    """Run the command line and exit with its exit code."""
    # First of all: a file that is opened while a standard descriptor is closed would take its place.
    guard_streams()
    settle_process_environment()
    _note_interrupts()
    code = _check_output(run(sys.argv[1:]))
    # A Ctrl-C while Python shuts down ends it at once, without a traceback from within a library.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The last garbage collection would look through a million objects of TensorFlow for two seconds (measured).
    gc.freeze()
    sys.exit(code if not _interrupts else 128 + signal.SIGINT)


# Ctrl-C where no command listens for it: an exception from a handler can be lost in a destructor or a callback.
_interrupts: list[int] = []


def _note_interrupts() -> None:
    """Remember each Ctrl-C before it becomes a KeyboardInterrupt, unless the program was started to ignore it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        _interrupts.append(number)
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)


def _check_output(code: int) -> int:
    """Return the exit code of a command, which is another one where its answer was lost."""
    try:
        lost = find_output_error()
    except BrokenPipeError:
        return end_by_pipe(code)
    # What a command that failed has to say is on standard error.
    return _failed(lost.lines(), lost.exit_code, debug=False) if lost and not code else code


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code; ``--debug`` is accepted at any place."""
    debug = "--debug" in arguments
    # Click would take a group's option only before the command.
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        refuse_namesake()
        _refuse_empty(arguments)
        # Errors of the file system that nobody foresaw, such as an impossible name, are the user's to mend, not bugs.
        with convert_system_errors():
            outcome: Any = cli.main(arguments, prog_name="imagetune", standalone_mode=False)
    except ImagetuneError as error:
        return _failed(error.lines(), error.exit_code, debug=debug)
    except click.UsageError as error:
        _show_usage(error)
        # A wrong option has the exit code of a wrong recipe: both are mistakes in what was asked for.
        return 2
    except (click.Abort, KeyboardInterrupt):
        return _failed(["error[stopped] stopped by SIGINT"], 130, debug=debug)
    except (SystemExit, BrokenPipeError):
        # Click's reaction to a reader that has gone away, such as head, is an exit of its own.
        return end_by_pipe(0)
    except Exception as error:  # noqa: BLE001  (a bug of ours still gets one line and its exit code)
        if _interrupts:
            # An import or a library that was interrupted in the middle fails in words of its own.
            return _failed(["error[stopped] stopped by SIGINT"], 130, debug=debug)
        if is_short_of_memory(error):
            return _failed([ResourceError("out of memory", hint=_MEMORY_HINT).line()], 5, debug=debug)
        hint = "this is a bug of imagetune: run again with --debug and report what it prints"
        return _failed([f"error[internal] {type(error).__name__}: {error}; {hint}"], 70, debug=debug)
    # With standalone_mode off Click returns what the command returned.
    return outcome if isinstance(outcome, int) else 0


def _refuse_empty(arguments: list[str]) -> None:
    # As a path it would be the working folder, which nobody means by an empty word.
    if "" in arguments:
        raise click.UsageError("an argument is empty: a variable of the command may not be set")


def _show_usage(error: click.UsageError) -> None:
    """Print what click's own ``show`` prints, by our way to the screen: the message quotes what was typed."""
    if error.ctx is not None:
        echo(*error.ctx.get_usage().split("\n"), err=True)
        echo(f"Try '{error.ctx.command_path} --help' for help.", "", err=True)
    echo(f"Error: {redact_text(error.format_message())}", err=True)


def _failed(lines: list[str], exit_code: int, *, debug: bool) -> int:
    if debug:
        lines = [*traceback.format_exc().rstrip().split("\n"), *lines]
    for line in lines:
        # To standard error: the results of --json stay parseable.
        echo(redact_text(line), err=True)
    return exit_code
