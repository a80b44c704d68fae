"""Checkpoints that are complete or absent: a folder each, written aside and renamed into place.

A checkpoint holds the model's weights and where training stood. Optimizer slots and random state, which an exact
resume needs, get their files here when resuming is built.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import keras

from imagetune.errors import CheckpointError
from imagetune.files import disk_errors, sha256_file, write_json

WEIGHTS = "model.weights.h5"
STATE = "state.json"
KEEP = 2


@dataclass(frozen=True)
class TrainingState:
    """Where training stood.

    Attributes:
        stage: Name of the stage.
        epoch: Finished epochs over all stages.
        step: Optimizer steps so far over all stages.
        figure: The watched figure after the last epoch, None before the first.
    """

    stage: str
    epoch: int
    step: int
    figure: float | None


def commit_checkpoint(folder: Path, model: keras.Model, state: TrainingState) -> Path:
    """Write a checkpoint and return its folder ``step-NNNNNNNN``.

    Raises:
        ResourceError: The disk is full; earlier checkpoints are untouched and nothing temporary is left.
    """
    target = folder / f"step-{state.step:08d}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".tmp-"))
        try:
            _write(temporary, model, state)
            if target.exists():  # a stop right after an epoch commits the same step again
                shutil.rmtree(target)
            temporary.rename(target)
            _sync_folder(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def load_checkpoint(path: Path, model: keras.Model) -> TrainingState:
    """Put a checkpoint's weights into ``model`` and return where training stood.

    Raises:
        CheckpointError: The files are not those that were committed.
    """
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        expected = content.pop("weights_sha256")
        state = TrainingState(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{STATE} can't be read: {error}", where=str(path)) from error
    weights = path / WEIGHTS
    if not weights.is_file() or sha256_file(weights) != expected:
        raise CheckpointError(f"{WEIGHTS} is missing or damaged", where=str(path), hint="use an earlier checkpoint")
    model.load_weights(weights)
    return state


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the committed checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE).is_file())


def prune_checkpoints(folder: Path, *, best: Path | None) -> None:
    """Delete all but the newest ``KEEP`` checkpoints and the best one."""
    kept = {*checkpoints_in(folder)[-KEEP:], best}
    for path in checkpoints_in(folder):
        if path not in kept:
            shutil.rmtree(path)


def _write(folder: Path, model: keras.Model, state: TrainingState) -> None:
    weights = folder / WEIGHTS
    model.save_weights(weights)
    with weights.open("rb") as written:
        os.fsync(written.fileno())
    write_json(folder / STATE, {**asdict(state), "weights_sha256": sha256_file(weights)})


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
