"""Folders that imagetune wrote: their plots and explanations are never read as images of a data set."""

from __future__ import annotations

import os
from pathlib import Path

from imagetune.core import run_files

# A run folder and its copies in an artifact store have the recipe, and one of these from the beginning on.
_BESIDE_RECIPE = (run_files.STATUS, run_files.LOCK, run_files.SPLITS)


def is_written(folder: str | Path) -> bool:
    """Return whether imagetune wrote a folder: a run, a search, a copy of one in MLflow's store, or explanations."""

    def is_there(name: str) -> bool:
        # Not by Path.exists, which raises for folders that can't be looked into.
        return os.path.lexists(os.path.join(folder, name))  # noqa: PTH118

    return is_there(run_files.WRITTEN) or (is_there(run_files.RECIPE) and any(map(is_there, _BESIDE_RECIPE)))
