"""Forkserver of the trials on this machine: a process with Keras imported, which every trial is forked from."""

from __future__ import annotations

from imagetune.core.environment import settle_backend
from imagetune.search.executors.processes import start_forkserver

# By name, as importing it here would do to this process what it does to that one: it freezes the garbage collector's
# objects and changes sys.path. What it imports, this package imports as well, so nothing is hidden from import-linter.
PRELOADED = (f"{__package__}.preload",)


def start_trial_forkserver() -> None:
    """Start the forkserver of the trials, so that it imports Keras while this process does other things."""
    settle_backend()
    start_forkserver(PRELOADED)
