"""What a case is: an input, the command line that meets it, and what may come of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

PLAIN_ENDS = frozenset({0, 2, 3, 4, 5, 6, 7, 8, 9, 10})
"""Exit codes that say what happened. 1 and 70 are bugs, 128 and above are signals."""


@dataclass(frozen=True)
class Room:
    """The folders of one case. Everything outside ``work`` and ``home`` must be the same afterwards."""

    root: Path
    shared: Path
    """What all cases share, and none changes: ``images/`` and ``new_images/`` (three classes), ``recipe.yaml`` (a
    fit of a moment) and ``run/``, what came of it."""

    @property
    def input(self) -> Path:
        """The folder where a case puts its hostile input, which the program may read and never write."""
        return self.root / "input"

    @property
    def work(self) -> Path:
        """The folder that the command is started in, and may write into."""
        return self.root / "work"

    @property
    def home(self) -> Path:
        """The user's home, with the cache of imagetune."""
        return self.root / "home"

    @property
    def outside(self) -> Path:
        """A folder with bait that no command names: whatever changes in it was overwritten by the input."""
        return self.root / "outside"

    @property
    def canary(self) -> Path:
        """The file that an input tries to make exist by running something, such as ``touch``."""
        return self.root / "canary"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    """Exit code; negative for a signal that ended it."""
    output: str
    """What it wrote to standard output and standard error."""
    cpu_seconds: float
    wall_seconds: float
    megabytes: float
    """Peak memory of its own, in all of its processes, at the highest moment."""
    hung: bool
    """Whether it was killed, as it did not end in time."""
    survivors: int
    """Processes of it that still ran after its end."""


def nothing(room: Room, outcome: Outcome) -> str:
    """Find nothing more to complain about."""
    del room, outcome
    return ""


@dataclass(frozen=True)
class Case:
    """An input, the command line that meets it, and what may come of it. Bounds are those above an idle command."""

    name: str
    """Kind and case, such as ``images/png-bomb``; unique."""
    command: Callable[[Room], Sequence[str | Path]]
    """Makes the input and returns the arguments of ``imagetune``."""
    codes: frozenset[int] = PLAIN_ENDS
    says: str = ""
    """A regular expression that is found in the output."""
    secret: str = ""
    """A text that must be neither in the output nor in any file that the command has written."""
    cpu_seconds: float = 5
    wall_seconds: float = 60
    megabytes: float = 500
    check: Callable[[Room, Outcome], str] = nothing
    """Returns what is wrong with what the command left, or nothing."""
    during: Callable[[Room], AbstractContextManager[object]] | None = None
    """What runs beside the command, such as a server; it is entered before ``command`` is called."""
    fresh: bool = False
    """Whether the command needs a Python of its own: for variables and streams that count at its start."""
    environment: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    """Resource limits by name, such as ``RLIMIT_FSIZE``, in their own units."""
    signals: tuple[tuple[float, int], ...] = ()
    """Signals sent to the process: seconds after its start, number."""
    stdout: str = ""
    """A path that standard output goes to instead of a file that is read afterwards, such as ``/dev/full``."""
    closed: tuple[int, ...] = ()
    """Descriptors that are closed at the start."""

    @property
    def kind(self) -> str:
        """The part of the name before the first slash."""
        return self.name.partition("/")[0]
