"""Checkpoints that are complete or absent: a folder each, written aside and renamed into place.

A checkpoint holds the model's weights and where training stood. The weights that training started with are one file
that all checkpoints of a run share by hard links; what has changed since lies beside it, so that a checkpoint costs
what has been learned: of a stage that trains a head, the head. A checkpoint made at the end of an epoch also holds all
else that going on exactly from there needs, see `imagetune.training.standing`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.core.files import disk_errors, sha256_file, write_json
from imagetune.errors import CheckpointError

START = "start.npz"
# What earlier versions wrote, in Keras's format.
_KERAS_START = "start.weights.h5"
CHANGED = "changed.npz"
STATE = "state.json"
RESUME = "resume.npz"
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
class Resume:
    """What going on exactly needs beside the weights.

    Attributes:
        values: Plain values by name, as in JSON.
        arrays: Arrays by name.
    """

    values: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


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
    resume: Resume | None = None,
) -> Path:
    """Write a checkpoint and return its folder ``step-NNNNNNNN``.

    Args:
        folder: The run's checkpoints.
        model: Whose weights are kept.
        state: Where training stands.
        start: From `start_of` the first checkpoint; by default all weights are written.
        learned: Places among the model's weights of all that may have changed since; by default every one.
        resume: What going on from here needs; by default nobody can.

    Raises:
        ResourceError: The disk is full; earlier checkpoints are untouched and nothing temporary is left.
    """
    target = checkpoint_path(folder, state.step)
    with _committed(target) as temporary:
        _write(temporary, model, state, start, learned, resume)
    return target


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the place of the checkpoint after so many passes."""
    return folder / f"step-{step:08d}"


def copy_checkpoint(path: Path, folder: Path) -> Path:
    """Give a checkpoint of another run a second name in ``folder``, by hard links where the file system can.

    Raises:
        CheckpointError: It isn't there.
        ResourceError: The disk is full.
    """
    if not (path / STATE).is_file():
        raise CheckpointError("there is no checkpoint", where=str(path))
    with _committed(folder / path.name) as temporary:
        for file in path.iterdir():
            _link(file, temporary / file.name)
    return folder / path.name


def start_of(path: Path, model: keras.Model) -> Start:
    """Return what later checkpoints need to know of the first one, just committed from ``model`` as it is."""
    expected = json.loads((path / STATE).read_text(encoding="utf-8"))["start_sha256"]
    name = _start_name(path)
    beside = path.parent / name
    beside.unlink(missing_ok=True)
    _link(path / name, beside)
    return Start(beside, expected, _digests(model))


def load_checkpoint(path: Path, model: keras.Model, learned: Collection[int] | None = None) -> TrainingState:
    """Put a checkpoint's weights into ``model`` and return where training stood.

    Args:
        path: The checkpoint.
        model: Of the same architecture.
        learned: Places among its weights that may differ from those that training started with; by default every one.

    Raises:
        CheckpointError: The files are not those that were committed.
    """
    state, _ = _verified(path)
    _load_start(path, model, learned)
    _load_changed(path, model)
    return state


def reopen_checkpoint(path: Path, model: keras.Model) -> tuple[TrainingState, Resume, Start]:
    """Put a checkpoint's weights into ``model`` and return all that training needs to go on from it.

    Raises:
        CheckpointError: The files are not those that were committed, or nobody can go on from them: it was made in the
            middle of an epoch or by a version of imagetune that didn't keep what that needs.
    """
    state, content = _verified(path)
    if "resume" not in content:
        raise CheckpointError("training can't go on from here: it was not made at the end of an epoch", where=str(path))
    with np.load(path / RESUME, allow_pickle=False) as stored:
        resume = Resume(content["resume"], {name: stored[name] for name in stored.files})
    _load_start(path, model, None)
    start = start_of(path, model)
    _load_changed(path, model)
    return state, resume, start


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the committed checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE).is_file())


def prune_checkpoints(folder: Path, *, best: Path | None) -> None:
    """Delete all but the newest ``KEEP`` checkpoints and the best one."""
    kept = {*checkpoints_in(folder)[-KEEP:], best}
    for path in checkpoints_in(folder):
        if path not in kept:
            shutil.rmtree(path)


@contextmanager
def _committed(target: Path) -> Iterator[Path]:
    """Give an empty folder that becomes ``target`` when the block ends well, and is removed otherwise."""
    folder = target.parent
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".tmp-"))
        try:
            yield temporary
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
            _sync_folder(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path,
    model: keras.Model,
    state: TrainingState,
    start: Start | None,
    learned: Collection[int] | None,
    resume: Resume | None,
) -> None:
    changed: dict[str, NDArray[Any]] = {}
    if start is None:
        digest = _write_arrays(folder / START, {str(at): _value(weight) for at, weight in enumerate(model.weights)})
    else:
        _link(start.weights, folder / start.weights.name)
        digest = start.sha256
        values = {place: _value(model.weights[place]) for place in learned or range(len(model.weights))}
        changed = {str(place): value for place, value in values.items() if _digest(value) != start.digests[place]}
    content = {**asdict(state), "start_sha256": digest, "changed_sha256": _write_arrays(folder / CHANGED, changed)}
    if resume is not None:
        content["resume"] = resume.values
        content["resume_sha256"] = _write_arrays(folder / RESUME, resume.arrays)
    write_json(folder / STATE, content)


def _write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> str:
    """Write arrays and return the SHA-256 of their file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]  # its stubs take the names for options
    _sync(path)
    return sha256_file(path)


def _verified(path: Path) -> tuple[TrainingState, dict[str, Any]]:
    """Return where training stood and all of state.json, once the other files are known to be as it says."""
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        expected = {_start_name(path): content["start_sha256"], CHANGED: content["changed_sha256"]}
        if "resume" in content:
            expected[RESUME] = content["resume_sha256"]
        state = TrainingState(*(content[name] for name in ("stage", "epoch", "step", "figure")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{STATE} can't be read: {error}", where=str(path)) from error
    for name, digest in expected.items():
        if not (path / name).is_file() or sha256_file(path / name) != digest:
            raise CheckpointError(f"{name} is missing or damaged", where=str(path), hint="use an earlier checkpoint")
    return state, content


def _start_name(path: Path) -> str:
    """Return the name of the file that holds the weights at the start."""
    return _KERAS_START if (path / _KERAS_START).is_file() else START


def _load_start(path: Path, model: keras.Model, places: Collection[int] | None) -> None:
    if (path / _KERAS_START).is_file():
        model.load_weights(path / _KERAS_START)
        return
    with np.load(path / START, allow_pickle=False) as stored:
        if len(stored.files) != len(model.weights):
            what = f"holds {len(stored.files)} weights, the model has {len(model.weights)}"
            raise CheckpointError(what, where=str(path / START))
        for place in range(len(model.weights)) if places is None else places:
            model.weights[place].assign(stored[str(place)])


def _load_changed(path: Path, model: keras.Model) -> None:
    with np.load(path / CHANGED, allow_pickle=False) as changed:
        for place in changed.files:
            model.weights[int(place)].assign(changed[place])


def _digests(model: keras.Model) -> tuple[bytes, ...]:
    return tuple(_digest(_value(weight)) for weight in model.weights)


def _value(weight: keras.Variable) -> NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(weight))


def _digest(value: NDArray[Any]) -> bytes:
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
