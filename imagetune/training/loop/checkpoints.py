"""Checkpoints that are complete or absent: a folder each, written aside and renamed into place.

A checkpoint holds the model's weights and the state of training. The weights that training started with are one file
that all checkpoints of a run share by hard links; what has changed since lies beside it, so that a checkpoint costs
what has been learned: of a stage that trains a head, the head. A checkpoint made at the end of an epoch also holds the
arrays that going on exactly from there needs, see `imagetune.training.loop.resume`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.core.files import disk_errors, sha256_file, write_json
from imagetune.errors import CheckpointError
from imagetune.training.loop.state import TrainingState

INITIAL = "start.npz"
CHANGED = "changed.npz"
STATE = "state.json"
ARRAYS = "resume.npz"
# Two, as the newest may turn out corrupted when the machine, and not only the process, dies.
KEEP = 2


@dataclass(frozen=True)
class InitialWeights:
    """The weights that training started with, as later checkpoints need to know them.

    Attributes:
        file: Their file, beside the checkpoints.
        sha256: Of the file.
        digests: SHA-256 of each of the model's weights.
    """

    file: Path
    sha256: str
    digests: tuple[bytes, ...]


def commit_checkpoint(
    folder: Path, model: keras.Model, state: TrainingState, initial: InitialWeights | None = None
) -> Path:
    """Write a checkpoint and return its folder ``step-NNNNNNNN``.

    Args:
        folder: The run's checkpoints.
        model: Whose weights are kept.
        state: Where training stands; only the weights that it names as learned are compared with the initial ones,
            all where it names none. Nobody can go on from a checkpoint without its arrays.
        initial: From `link_initial_weights` of the first checkpoint; by default all weights are written.

    Raises:
        ResourceError: The disk is full; earlier checkpoints are untouched and nothing temporary is left.
    """
    target = checkpoint_path(folder, state.step)
    with _committed(target) as temporary:
        _write(temporary, model, state, initial)
    return target


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint after so many passes, whether it is there or not."""
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


def link_initial_weights(path: Path, model: keras.Model) -> InitialWeights:
    """Give the initial weights of a checkpoint a name beside it, and return what later ones need to know of them.

    Args:
        path: A checkpoint.
        model: With the initial weights.
    """
    expected = json.loads((path / STATE).read_text(encoding="utf-8"))["start_sha256"]
    # The first checkpoint is soon pruned; its file has to outlive it.
    beside = path.parent / INITIAL
    beside.unlink(missing_ok=True)
    _link(path / INITIAL, beside)
    return InitialWeights(beside, expected, tuple(_digest(_value(weight)) for weight in model.weights))


def load_checkpoint(path: Path, model: keras.Model, learned: Collection[int] | None = None) -> TrainingState:
    """Put a checkpoint's weights into ``model`` and return where training stood, without the arrays.

    Args:
        path: The checkpoint.
        model: Of the same architecture.
        learned: Positions among its weights that may differ from the initial ones; by default every one.

    Raises:
        CheckpointError: The files are not those that were committed.
    """
    state, _ = _verify(path)
    _load_initial(path, model, learned)
    _load_changed(path, model)
    return state


def reopen_checkpoint(path: Path, model: keras.Model) -> tuple[TrainingState, InitialWeights]:
    """Put a checkpoint's weights into ``model`` and return all that training needs to go on from it.

    Raises:
        CheckpointError: The files are not those that were committed, or nobody can go on from them: it was made in the
            middle of an epoch.
    """
    state, resumable = _verify(path)
    if not resumable:
        raise CheckpointError("training can't go on from here: it was not made at the end of an epoch", where=str(path))
    with np.load(path / ARRAYS, allow_pickle=False) as stored:
        state = replace(state, arrays={name: stored[name] for name in stored.files})
    _load_initial(path, model, None)
    initial = link_initial_weights(path, model)
    _load_changed(path, model)
    return state, initial


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the folders of the committed checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if (path / STATE).is_file())


def prune_checkpoints(folder: Path, *, best: Path | None) -> None:
    """Delete all but the newest ``KEEP`` checkpoints and the best one."""
    kept = {*list_checkpoints(folder)[-KEEP:], best}
    for path in list_checkpoints(folder):
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


def _write(folder: Path, model: keras.Model, state: TrainingState, initial: InitialWeights | None) -> None:
    changed: dict[str, NDArray[Any]] = {}
    if initial is None:
        digest = _write_arrays(folder / INITIAL, {str(at): _value(weight) for at, weight in enumerate(model.weights)})
    else:
        _link(initial.file, folder / INITIAL)
        digest = initial.sha256
        positions = state.learned or range(len(model.weights))
        values = {position: _value(model.weights[position]) for position in positions}
        changed = {str(at): value for at, value in values.items() if _digest(value) != initial.digests[at]}
    content = {**state.as_json(), "start_sha256": digest, "changed_sha256": _write_arrays(folder / CHANGED, changed)}
    if state.arrays:
        content["resume_sha256"] = _write_arrays(folder / ARRAYS, state.arrays)
    # Last: a folder without this file is no checkpoint.
    write_json(folder / STATE, content)


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write arrays and return the SHA-256 of their file."""
    np.savez(path, **arrays)  # type: ignore[arg-type]  # its stubs take the names for options
    _sync(path)
    return sha256_file(path)


def _verify(path: Path) -> tuple[TrainingState, bool]:
    """Return where training stood and whether it can go on, once the files are known to be as state.json says."""
    try:
        content = json.loads((path / STATE).read_text(encoding="utf-8"))
        expected = {INITIAL: content["start_sha256"], CHANGED: content["changed_sha256"]}
        if resumable := "resume_sha256" in content:
            expected[ARRAYS] = content["resume_sha256"]
        state = TrainingState.from_json(content, path.parent)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{STATE} can't be read: {error}", where=str(path)) from error
    for name, digest in expected.items():
        if not (path / name).is_file() or sha256_file(path / name) != digest:
            raise CheckpointError(f"{name} is missing or corrupted", where=str(path), hint="use an earlier checkpoint")
    return state, resumable


def _load_initial(path: Path, model: keras.Model, positions: Collection[int] | None) -> None:
    with np.load(path / INITIAL, allow_pickle=False) as stored:
        if len(stored.files) != len(model.weights):
            what = f"holds {len(stored.files)} weights, the model has {len(model.weights)}"
            raise CheckpointError(what, where=str(path / INITIAL))
        for position in range(len(model.weights)) if positions is None else positions:
            model.weights[position].assign(stored[str(position)])


def _load_changed(path: Path, model: keras.Model) -> None:
    with np.load(path / CHANGED, allow_pickle=False) as changed:
        for position in changed.files:
            model.weights[int(position)].assign(changed[position])


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
