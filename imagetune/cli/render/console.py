"""Standard output and error in whatever encoding they have, and also where they are closed, full or unread.

What is lost is remembered: a command whose answer nobody could read ends with an exit code that says so, and a run
that has been trained is finished all the same.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from imagetune.errors import ResourceError

_ESCAPE = "imagetune.escape"
_NAMES = {1: "standard output", 2: "standard error"}


class _Descriptor(io.FileIO):
    """The file behind a standard stream, which remembers the first failed write and takes no more after it.

    Args:
        number: Its descriptor: 1 or 2.
        closed: Whether it was closed when the program started, so that whatever is written is lost.
    """

    def __init__(self, number: int, *, closed: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self.lost: OSError | None = None
        # Nobody reads what is written to standard error to decide anything, and there is nowhere else to say it.
        self.patient = number == 2
        self._was_closed = closed

    def write(self, data: Any, /) -> int:
        """Write bytes; after a failure they are discarded, as nothing that comes later would make sense.

        Raises:
            ResourceError: This write failed, and what is computed is meant for this stream alone.
            BrokenPipeError: Its reader has gone away.
        """
        if self.lost is None:
            try:
                return self._write(data)
            except OSError as error:
                self.lost = error
                if not self.patient:
                    self.report()
        return len(memoryview(data).cast("B"))

    def report(self) -> None:
        """Raise the failure, if there was one, as an error for users."""
        if self.lost is None:
            return
        if self.lost.errno == errno.EPIPE:
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))
        hint = "what was computed is not shown in full; give it a terminal, or a file on a disk with room"
        raise ResourceError(f"can't write: {self.lost.strerror}", where=_NAMES[self.fileno()], hint=hint) from self.lost

    def _write(self, data: Any) -> int:
        if self._was_closed:
            raise OSError(errno.EBADF, "it is closed")
        return super().write(data) or 0


_output: _Descriptor | None = None


def guard_streams() -> None:
    r"""Make standard output and error survive closed descriptors, full disks and characters that they don't have.

    A pipe on Windows is in cp1252, an old locale in latin-1, and names of files may be no text at all: what the
    encoding lacks is escaped as ``\u732b``. The escape is that of JSON, whose lines stay valid: such characters stand
    in its strings alone.
    """
    global _output  # noqa: PLW0603 - standard output belongs to the whole process, too
    codecs.register_error(_ESCAPE, _escape)
    closed = _fill_closed_descriptors()
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # Something else is there where a test or a notebook has put its own.
        if number in closed or (isinstance(stream, io.TextIOWrapper) and _is_standard(stream, number)):
            descriptor = _Descriptor(number, closed=number in closed)
            setattr(sys, name, _open_text(descriptor, stream))
            if number == 1:
                _output = descriptor


@contextmanager
def keep_going_without_output() -> Iterator[None]:
    """Let a run go on in the block although standard output can't be written to: its answer is in its folder."""
    if _output is None:
        yield
        return
    _output.patient = True
    try:
        yield
    finally:
        _output.patient = False


def find_output_error() -> ResourceError | None:
    """Flush standard output, and return why what was written to it is lost; None where it isn't.

    Raises:
        BrokenPipeError: Its reader has gone away.
    """
    if _output is None:
        return None
    try:
        # Click may have put a stand-in of its own there.
        with suppress(ValueError):
            sys.stdout.flush()
        _output.report()
    except ResourceError as error:
        return error
    return None


def end_by_pipe(code: int) -> int:
    """Return the exit code of a command whose reader has gone away: that of SIGPIPE, unless it failed before."""
    return code or 128 + signal.SIGPIPE


def _fill_closed_descriptors() -> set[int]:
    """Put the null device in the place of closed standard descriptors, and return those.

    Otherwise the next file that is opened, such as a model, takes the number, and libraries print into it.
    """
    closed = set()
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            closed.add(number)
            # The lowest free number is taken, which is this one.
            os.open(os.devnull, os.O_RDWR)
    return closed


def _is_standard(stream: io.TextIOWrapper, number: int) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):
        return False


def _open_text(descriptor: _Descriptor, model: Any) -> io.TextIOWrapper:
    """Return a text stream to a descriptor with the encoding and buffering of the one that it replaces, if any."""
    with suppress(AttributeError, OSError, ValueError):
        model.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(descriptor),
        encoding=getattr(model, "encoding", None) or "utf-8",
        errors=_ESCAPE,
        line_buffering=descriptor.fileno() == 2 or getattr(model, "line_buffering", False),
        write_through=getattr(model, "write_through", False),
    )


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return json.dumps(error.object[error.start : error.end])[1:-1], error.end
