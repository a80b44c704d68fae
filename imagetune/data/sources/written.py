"""Folders that imagetune wrote: their plots and explanations are never read as images of a data set."""

from __future__ import annotations

from pathlib import Path

from imagetune.core import run_files

# A run folder and its copies in an artifact store have the recipe, and one of these from the beginning on.
_BESIDE_RECIPE = (run_files.STATUS, run_files.LOCK, run_files.SPLITS)


def is_written(folder: str | Path) -> bool:
    """Return whether imagetune wrote a folder: a run, a search, a copy of one in MLflow's store, or explanations."""
    place = Path(folder)
    if (place / run_files.WRITTEN).exists():
        return True
    return (place / run_files.RECIPE).is_file() and any((place / name).exists() for name in _BESIDE_RECIPE)
