"""A run goes on without its screen; only the end says what was lost."""

import errno
import io
import os
import sys
from contextlib import contextmanager

import pytest

from imagetune.cli.render import console
from imagetune.errors import ResourceError


@contextmanager
def full_output(monkeypatch):
    """Let standard output be on a full disk, guarded as by the command line."""
    kept, full = os.dup(1), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, 1)
    with monkeypatch.context() as patched:
        for number, name in ((1, "stdout"), (2, "stderr")):
            own = io.TextIOWrapper(io.BufferedWriter(io.FileIO(number, "w", closefd=False)), encoding="utf-8")
            patched.setattr(sys, name, own)
        patched.setattr(console, "_output", None)
        console.guard_streams()
        yield
    os.dup2(kept, 1)
    os.close(full)


def test_a_full_disk_ends_a_command_that_only_prints(monkeypatch):
    with full_output(monkeypatch):
        with pytest.raises(ResourceError, match="standard output: can't write: No space left"):
            print("an answer", flush=True)
        # What comes later is discarded without another error.
        print("more", flush=True)
        lost = console.find_output_error()
    assert lost is not None and lost.exit_code == 5


def test_a_run_goes_on_and_what_was_lost_is_known_at_its_end(monkeypatch):
    with full_output(monkeypatch):
        with console.keep_going_without_output():
            print("a library's words", flush=True)
        lost = console.find_output_error()
    assert lost is not None
    assert lost.__cause__.errno == errno.ENOSPC
