"""Checkpoints that are complete or absent: a folder each, written aside and renamed into place.

A checkpoint holds the model's weights and where training stood. The weights that training started with are one file
that all checkpoints of a run share by hard links; what has changed since lies beside it, so that a checkpoint costs
what has been learned: of a stage that trains a head, the head. Optimizer slots and random state, which an exact resume
needs, get their files here when resuming is built.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.errors import CheckpointError
from imagetune.files import disk_errors, sha256_file, write_json

START = "start.weights.h5"
CHANGED = "changed.npz"
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


@dataclass(frozen=True)
class Start:
    """The weights that training started with.

    Attributes:
        weights: Their file, beside the checkpoints.
        sha256: Of the file.
        digests: SHA-256 of each of the model's weights.
    """

    weights: Path
    sha256: str
    digests: tuple[bytes, ...]


def commit_checkpoint(
    folder: Path,
    model: keras.Model,
    state: TrainingState,
    start: Start | None = None,
    learned: Collection[int] | None = None,
) -> Path:
    """Write a checkpoint and return its folder ``step-NNNNNNNN``.

    Args:
        folder: The run's checkpoints.
        model: Whose weights are kept.
        state: Where training stands.
        start: From `start_of` the first checkpoint; by default all weights are written.
        learned: Places among the model's weights of all that may have changed since; by default every one.

    Raises:
        ResourceError: The disk is full; earlier checkpoints are untouched and nothing temporary is left.
    """
    target = folder / f"step-{state.step:08d}"
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".tmp-"))
        try:
            _write(temporary, model, state, start, learned)
            if target.exists():  # a stop right after an epoch commits the same step again
                shutil.rmtree(target)
            temporary.rename(target)
            _sync_folder(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return target


def start_of(path: Path, model: keras.Model) -> Start:
    """Return what later checkpoints need to know of the first one, just committed from ``model`` as it is."""
    expected = json.loads((path / STATE).read_text(encoding="utf-8"))["start_sha256"]
    beside = path.parent / START
    beside.unlink(missing_ok=True)
    _link(path / START, beside)
    return Start(beside, expected, tuple(_digest(_value(weight)) for weight in model.weights))


def load_checkpoint(path: Path, model: keras.Model) -> TrainingState:
    """Put a checkpoint's weights into ``model`` and return where training stood.

    Raises:
        CheckpointError: The files are not those that were committed.
    """
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        expected = {name: content.pop(key) for name, key in ((START, "start_sha256"), (CHANGED, "changed_sha256"))}
        state = TrainingState(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{STATE} can't be read: {error}", where=str(path)) from error
    for name, digest in expected.items():
        if not (path / name).is_file() or sha256_file(path / name) != digest:
            raise CheckpointError(f"{name} is missing or damaged", where=str(path), hint="use an earlier checkpoint")
    model.load_weights(path / START)
    with np.load(path / CHANGED, allow_pickle=False) as changed:
        for place in changed.files:
            model.weights[int(place)].assign(changed[place])
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


def _write(
    folder: Path, model: keras.Model, state: TrainingState, start: Start | None, learned: Collection[int] | None
) -> None:
    changed: dict[str, NDArray[np.generic]] = {}
    if start is None:
        model.save_weights(folder / START)
        _sync(folder / START)
        digest = sha256_file(folder / START)
    else:
        _link(start.weights, folder / START)
        digest = start.sha256
        values = {place: _value(model.weights[place]) for place in learned or range(len(model.weights))}
        changed = {str(place): value for place, value in values.items() if _digest(value) != start.digests[place]}
    np.savez(folder / CHANGED, **changed)  # type: ignore[arg-type]  # its stubs take the names for options
    _sync(folder / CHANGED)
    hashes = {"start_sha256": digest, "changed_sha256": sha256_file(folder / CHANGED)}
    write_json(folder / STATE, {**asdict(state), **hashes})


def _value(weight: keras.Variable) -> NDArray[np.generic]:
    return np.asarray(keras.ops.convert_to_numpy(weight))


def _digest(value: NDArray[np.generic]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system can't."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _sync(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
