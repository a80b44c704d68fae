"""The tree of exceptions that users can meet, each with the exit code of the command line.

    ImagetuneError                70  (a bug of ours when raised bare)
    |-- RecipeError                2  the recipe says something impossible
    |-- DataError                  3  images, labels or splits
    |   `-- BadImageError        3  one image that can't be decoded
    |-- DivergedError              4  the loss is no longer a finite number
    |-- ResourceError              5  memory, disk
    |   `-- WeightsError           5  pretrained weights that are not to be had
    |-- CheckpointError            6  checkpoints, resuming, a run folder in use
    |-- TrackingError              7  tracking is required and can't be reached
    |-- SearchError                8  a search without one good trial
    |-- ModelFileError             9  a model file that is corrupted, in another format or unsafe
    |-- GateError                 10  a test metric that misses a requirement of the recipe
    `-- StoppedError        128 + n  stopped by signal n

A message has three parts: where, what is wrong (with what was expected or is available), and what to do. The command
line prints it as one line, ``error[CODE] where: what; hint``.
"""

from __future__ import annotations

import signal
from typing import ClassVar

# Of a line on the screen, of its end where its middle is left out, and of the lines of a recipe.
_MAX_CHARACTERS = 3_000
_KEPT = 500
_MAX_LINES = 50


class ImagetuneError(Exception):
    """The base class of every expected failure.

    Args:
        what: What is wrong, with the offending value and what was expected.
        where: The file, ``file:line:column``, field, image or address that it is about.
        hint: What to do about it, an imperative clause.
    """

    code: ClassVar[str] = "internal"
    exit_code: int = 70

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.hint}" if self.hint else text

    def line(self) -> str:
        """Return the message as the one line that the command line prints, its middle left out where it is endless."""
        line = " ".join(f"error[{self.code}] {self}".split())
        # What a file says may be a name of a million letters; what to do about it stands at the end.
        return line if len(line) <= _MAX_CHARACTERS else f"{line[: _MAX_CHARACTERS - _KEPT]} ... {line[-_KEPT:]}"

    def lines(self) -> list[str]:
        """Return a line for each mistake; only a recipe's error can have more than one."""
        return [self.line()]


class RecipeError(ImagetuneError):
    """The recipe, an override or a command-line value is wrong."""

    code = "recipe"
    exit_code = 2
    also: tuple[RecipeError, ...] = ()

    def with_also(self, others: tuple[RecipeError, ...]) -> RecipeError:
        """Return this error with the other mistakes of the same recipe attached, so that all are reported at once."""
        self.also = others
        return self

    def lines(self) -> list[str]:
        """Return a line for each mistake; of more than fifty, the number of the others in their place."""
        lines = [self.line(), *(line for other in self.also for line in other.lines())]
        rest = len(lines) - _MAX_LINES
        return [*lines[:_MAX_LINES], f"error[{self.code}] {rest:,} more mistakes"] if rest > 0 else lines


class DataError(ImagetuneError):
    """Images, labels or splits are wrong."""

    code = "data"
    exit_code = 3


class BadImageError(DataError):
    """One image can't be decoded; ``where`` is its path."""

    code = "image"


class DivergedError(ImagetuneError):
    """The training loss became NaN or infinite."""

    code = "diverged"
    exit_code = 4


class ResourceError(ImagetuneError):
    """Memory or disk ran out."""

    code = "resources"
    exit_code = 5


class WeightsError(ResourceError):
    """Pretrained weights are not available, or don't have the expected content."""

    code = "weights"


class CheckpointError(ImagetuneError):
    """A checkpoint can't be used, or the run folder belongs to another process."""

    code = "checkpoint"
    exit_code = 6


class TrackingError(ImagetuneError):
    """Tracking is required by the recipe and the server can't be reached."""

    code = "tracking"
    exit_code = 7


class SearchError(ImagetuneError):
    """A search has no result, because every trial failed."""

    code = "search"
    exit_code = 8


class ModelFileError(ImagetuneError):
    """A model file is corrupted, in another format, or unsafe to load; or a folder is no run folder."""

    code = "model-file"
    exit_code = 9


class GateError(ImagetuneError):
    """A test metric misses a requirement of ``evaluate.require``."""

    code = "gate"
    exit_code = 10


class StoppedError(ImagetuneError):
    """The user, the system or a program asked the process to stop.

    Args:
        signal_number: The received signal, which added to 128 gives the exit code. None where a program asked, by the
            ``stop`` of `imagetune.fit`, which counts as SIGINT, or where the time is over.
        where: The run that was stopped, if any.
        requeue: Whether the same command shall be run again to go on: the exit code is then 75, on which schedulers
            requeue.
    """

    code = "stopped"

    def __init__(self, signal_number: int | None, *, where: str = "", requeue: bool = False) -> None:
        asked = "stopped as its time is over" if requeue else "stopped on request"
        what = asked if signal_number is None else f"stopped by {signal.Signals(signal_number).name}"
        super().__init__(what, where=where)
        self.signal_number = signal.SIGINT if signal_number is None else signal_number
        self.requeue = requeue
        # EX_TEMPFAIL of sysexits.h.
        self.exit_code = 75 if requeue else 128 + self.signal_number
