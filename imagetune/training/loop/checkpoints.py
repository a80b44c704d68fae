"""Checkpoints: a folder each, complete or absent, because it is written aside and renamed into place.

A checkpoint holds the model's weights and the state of training. The weights that training started with are one file
that all checkpoints of a run share by hard links; those that have changed since lie beside it, so that a checkpoint of
a stage that trains only the head is as small as the head. Beside them lie the arrays that resuming exactly from there
needs, see `imagetune.training.loop.resume`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from imagetune.core.archives import BROKEN, open_arrays
from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION, SURPRISES, check_format_version
from imagetune.core.files import (
    compute_file_sha256,
    convert_disk_errors,
    link_or_copy,
    read_json,
    write_json,
)
from imagetune.core.leftovers import name_temporary
from imagetune.errors import CheckpointError
from imagetune.training.loop.state import TrainingState

# Not by Keras's BackupAndRestore, which replays the epoch and loses the state of early stopping and plateau.
INITIAL = "start.npz"
CHANGED = "changed.npz"
STATE = "state.json"
ARRAYS = "resume.npz"
# Two, as the newest may turn out corrupted when the machine, and not only the process, dies.
KEEP = 2


@dataclass(frozen=True)
class InitialWeights:
    """The weights that training started with: their file and hashes, for later checkpoints.

    Attributes:
        file: File of the weights, beside the checkpoints.
        sha256: SHA-256 of the file.
        digests: SHA-256 of each of the model's weights.
    """

    file: Path
    sha256: str
    digests: tuple[bytes, ...]


@dataclass(frozen=True)
class Snapshot:
    """What a checkpoint holds, copied in memory, so that training can go on while it is written.

    Attributes:
        state: State of training.
        values: Values of the weights by position: those that may differ from the initial ones, or all.
        initial: Weights that training started with; None for the first checkpoint, which holds them.
    """

    state: TrainingState
    values: Mapping[int, NDArray[Any]]
    initial: InitialWeights | None


def commit_checkpoint(
    folder: Path, model: keras.Model, state: TrainingState, initial: InitialWeights | None = None
) -> Path:
    """Write a checkpoint and return its folder ``step-NNNNNNNN``.

    Args:
        folder: Folder of the run's checkpoints.
        model: Model whose weights are written.
        state: State of training; only the weights that it lists as learned are compared with the initial ones, or all
            where it lists none. Without arrays the checkpoint can't be resumed from.
        initial: Result of `link_initial_weights` for the first checkpoint; by default all weights are written.

    Raises:
        ResourceError: The disk is full; earlier checkpoints are untouched and nothing temporary is left.
    """
    return write_checkpoint(folder, take_snapshot(model, state, initial))


def take_snapshot(model: keras.Model, state: TrainingState, initial: InitialWeights | None) -> Snapshot:
    """Return a copy of what `commit_checkpoint` writes for the same arguments."""
    positions = (state.learned if initial is not None else ()) or range(len(model.weights))
    return Snapshot(state, {at: _copy_value(model.weights[at]) for at in positions}, initial)


def write_checkpoint(folder: Path, snapshot: Snapshot) -> Path:
    """Write a checkpoint of a snapshot as `commit_checkpoint` does, and return its folder."""
    target = get_checkpoint_path(folder, snapshot.state.step)
    with _commit_folder(target) as temporary:
        _write(temporary, snapshot)
    return target


def get_checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint after a number of passes, whether it exists or not."""
    return folder / f"step-{step:08d}"


def copy_checkpoint(path: Path, folder: Path) -> Path:
    """Copy a checkpoint of another run into ``folder``, by hard links where the file system allows, and return it.

    Raises:
        CheckpointError: It doesn't exist.
        ResourceError: The disk is full.
    """
    if not (path / STATE).is_file():
        raise CheckpointError("there is no checkpoint", where=str(path))
    with _commit_folder(folder / path.name) as temporary:
        for name in (INITIAL, CHANGED, ARRAYS, STATE):
            # A link would bring a file from elsewhere, and a pipe would never end.
            if (path / name).is_file() and not (path / name).is_symlink():
                link_or_copy(path / name, temporary / name)
    return folder / path.name


def link_initial_weights(path: Path, model: keras.Model) -> InitialWeights:
    """Link the initial weights of a checkpoint beside it, and return their file and hashes.

    Args:
        path: A checkpoint.
        model: The model with the initial weights.
    """
    expected = json.loads((path / STATE).read_text(encoding="utf-8"))["start_sha256"]
    # The first checkpoint is soon pruned; its file has to outlive it.
    beside = path.parent / INITIAL
    beside.unlink(missing_ok=True)
    link_or_copy(path / INITIAL, beside)
    return InitialWeights(beside, expected, tuple(_hash_value(_copy_value(weight)) for weight in model.weights))


def load_checkpoint(path: Path, model: keras.Model, learned: Collection[int] | None = None) -> TrainingState:
    """Load a checkpoint's weights into a model, and return the state of training without the arrays.

    Args:
        path: The checkpoint.
        model: A model of the same architecture.
        learned: Positions of the weights that may differ from the initial ones; by default all.

    Raises:
        CheckpointError: The files are not those that were committed.
    """
    state, _ = _verify(path)
    _load_initial(path, model, learned)
    _load_changed(path, model)
    return state


def reopen_checkpoint(path: Path, model: keras.Model) -> tuple[TrainingState, InitialWeights]:
    """Load a checkpoint's weights into a model, and return all that training needs to resume from it.

    Raises:
        CheckpointError: The files are not those that were committed, or it has no arrays to resume from.
    """
    state, resumable = _verify(path)
    if not resumable:
        raise CheckpointError("training can't be resumed from the weights that it started with", where=str(path))
    with _open_arrays(path / ARRAYS) as stored:
        state = replace(state, arrays={name: stored[name] for name in stored.files})
    _load_initial(path, model, None)
    # Between the two loads, while the model has the initial weights, of which it computes the digests.
    initial = link_initial_weights(path, model)
    _load_changed(path, model)
    return state, initial


@dataclass(frozen=True)
class ResumePoint:
    """Where training can be resumed.

    Attributes:
        checkpoint: The newest checkpoint that is whole, with all that it needs.
        state: Its state, without the arrays.
        passed_over: Why newer ones can't be used.
    """

    checkpoint: Path
    state: TrainingState
    passed_over: tuple[CheckpointError, ...] = ()


def find_resume_point(folder: Path) -> ResumePoint | None:
    """Return where training can be resumed; None where no checkpoint but that of the first weights was made.

    Args:
        folder: Folder of a training's checkpoints.

    Raises:
        CheckpointError: There are checkpoints to resume from, and all are corrupted.
    """
    problems: list[CheckpointError] = []
    for path in reversed(list_checkpoints(folder)):
        try:
            state, resumable = _verify(path)
            for name in state.needed_checkpoints - {path.name} if resumable else ():
                _verify(folder / name)
        except CheckpointError as error:
            problems.append(error)
            continue
        if resumable:
            return ResumePoint(path, state, tuple(problems))
    if problems:
        raise problems[0]
    return None


def require_resume_point(folder: Path) -> ResumePoint:
    """Return where training can be resumed.

    Raises:
        CheckpointError: There is no such checkpoint, or all are corrupted.
    """
    found = find_resume_point(folder)
    if found is None:
        raise CheckpointError("there is no checkpoint to resume from", where=str(folder))
    return found


def remove_later_checkpoints(path: Path) -> None:
    """Remove the checkpoints that are newer than this one, from which training is resumed in its own folder."""
    for later in list_checkpoints(path.parent):
        if later.name > path.name:
            shutil.rmtree(later)


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the folders of the committed checkpoints, oldest first."""
    # Steps have leading zeros, so that names sort like numbers.
    return sorted(path for path in folder.glob("step-*") if (path / STATE).is_file())


def prune_checkpoints(folder: Path) -> None:
    """Delete all but the newest ``KEEP`` checkpoints, and those that resuming from them needs."""
    newest = list_checkpoints(folder)[-KEEP:]
    kept = {path.name for path in newest}
    for path in newest:
        # One that is corrupted needs nothing any more.
        with suppress(CheckpointError):
            kept |= _read_state(path)[0].needed_checkpoints
    for path in list_checkpoints(folder):
        if path.name not in kept:
            shutil.rmtree(path)


@contextmanager
def _commit_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes ``target`` when the block succeeds, and is removed otherwise."""
    folder = target.parent
    with convert_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=name_temporary()))
        try:
            yield temporary
            # A rename can't replace a folder that isn't empty.
            if target.exists():
                shutil.rmtree(target)
            temporary.rename(target)
            # Otherwise a power cut may undo the rename.
            _sync_folder(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write(folder: Path, snapshot: Snapshot) -> None:
    initial, state = snapshot.initial, snapshot.state
    changed: dict[str, NDArray[Any]] = {}
    if initial is None:
        digest = _write_arrays(folder / INITIAL, {str(at): value for at, value in snapshot.values.items()})
    else:
        link_or_copy(initial.file, folder / INITIAL)
        digest = initial.sha256
        # To write frozen weights as well took 0.25 to 0.6 s an epoch of a head, not 0.01 (docs/performance.md).
        values = snapshot.values.items()
        changed = {str(at): value for at, value in values if _hash_value(value) != initial.digests[at]}
    digests = {"start_sha256": digest, "changed_sha256": _write_arrays(folder / CHANGED, changed)}
    if state.arrays:
        digests["resume_sha256"] = _write_arrays(folder / ARRAYS, state.arrays)
    # Written last: a folder without this file is not a checkpoint, wherever a rename isn't atomic.
    write_json(folder / STATE, {FORMAT_VERSION: CURRENT_FORMAT, **state.as_json(), **digests})


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write arrays and return the SHA-256 of their file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]  # its stubs take the names for options
    _sync(path)
    return compute_file_sha256(path)


def _verify(path: Path) -> tuple[TrainingState, bool]:
    """Return the state of training, and whether it can be resumed, after checking the files' hashes."""
    state, expected = _read_state(path)
    for name, digest in expected.items():
        if not (path / name).is_file() or compute_file_sha256(path / name) != digest:
            raise CheckpointError(f"{name} is missing or corrupted", where=str(path), hint="use an earlier checkpoint")
    return state, ARRAYS in expected


def _read_state(path: Path) -> tuple[TrainingState, dict[str, str]]:
    """Return the state of training, and the SHA-256 that each file of a checkpoint must have."""
    try:
        content = read_json(path / STATE)
        check_format_version(content, path / STATE, error=CheckpointError)
        expected = {INITIAL: content["start_sha256"], CHANGED: content["changed_sha256"]}
        if "resume_sha256" in content:
            expected[ARRAYS] = content["resume_sha256"]
        return TrainingState.from_json(content, path.parent), expected
    except (OSError, *SURPRISES) as error:
        raise CheckpointError(f"{STATE} can't be read: {error}", where=str(path)) from error


def _load_initial(path: Path, model: keras.Model, positions: Collection[int] | None) -> None:
    with _open_arrays(path / INITIAL) as stored:
        if len(stored.files) != len(model.weights):
            what = f"holds {len(stored.files)} weights, the model has {len(model.weights)}"
            raise CheckpointError(what, where=str(path / INITIAL))
        for position in range(len(model.weights)) if positions is None else positions:
            model.weights[position].assign(stored[str(position)])


def _load_changed(path: Path, model: keras.Model) -> None:
    with _open_arrays(path / CHANGED) as changed:
        for position in changed.files:
            model.weights[int(position)].assign(changed[position])


@contextmanager
def _open_arrays(path: Path) -> Iterator[NpzFile]:
    """Yield the arrays of a file; what they can't be, or can't be assigned to, is the checkpoint's mistake."""
    try:
        with open_arrays(path) as arrays:
            yield arrays
    except BROKEN as error:
        raise CheckpointError(f"its arrays can't be used: {error}", where=str(path)) from error


def _copy_value(weight: keras.Variable) -> NDArray[Any]:
    # Without the copy the array may share the variable's memory, which the next step overwrites.
    return np.array(keras.ops.convert_to_numpy(weight))


def _hash_value(value: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(value).tobytes()).digest()


def _sync(path: Path) -> None:
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
