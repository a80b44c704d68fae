"""What of ended runs can be removed to free the disk, and its removal.

A run that is being written is left alone with all that is below it, and so is whatever resuming needs: the checkpoints
of a run that failed or was stopped, and those of a search that has not finished. A finished run's model goes only when
that is asked for.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from imagetune.core import run_files
from imagetune.core.files import convert_disk_errors
from imagetune.errors import ModelFileError
from imagetune.run_folder.folder import RunFolder, find_leftovers, is_in_progress, remove_path
from imagetune.run_folder.receipt import renew_receipt

_CHECKPOINT_FILE = re.compile(r"step-\d{8,12}|[\w-]+\.npz|\.tmp-.*")
What = Literal["checkpoints", "interrupted attempts", "leftovers", "model", "whole run"]


@dataclass(frozen=True)
class Removal:
    """Something that can be removed.

    Attributes:
        run: The run folder that it belongs to.
        what: What it is, in words.
        paths: Its files and folders.
    """

    run: Path
    what: What
    paths: tuple[Path, ...]


@dataclass(frozen=True)
class Pruned:
    """One thing that was, or would be, removed.

    Attributes:
        removal: What it is.
        freed_bytes: How much of the disk it frees.
    """

    removal: Removal
    freed_bytes: int


OnError: TypeAlias = Callable[[OSError], None]


def _raise(error: OSError) -> None:
    raise error


def prune_runs(
    places: Sequence[Path],
    *,
    models: bool = False,
    unfinished: bool = False,
    dry: bool = True,
    onerror: OnError = _raise,
) -> list[Pruned]:
    """Return what ended runs no longer need, and remove it unless this is a dry run.

    Args:
        places: Run folders, folders of searches, or folders with such folders.
        models: Also the models of finished runs.
        unfinished: Also runs that failed or were stopped and have no model, as a whole.
        dry: Whether nothing is removed.
        onerror: As in `find_removals`.

    Raises:
        ModelFileError: A folder doesn't exist.
        ResourceError: A folder can't be written.
    """
    found = [
        removal
        for place in places
        for removal in find_removals(place, models=models, unfinished=unfinished, onerror=onerror)
    ]
    # Each once, although two places may hold it.
    found = list(dict.fromkeys(found))
    pruned = [Pruned(removal, freed) for removal, freed in zip(found, compute_freed_bytes(found), strict=True)]
    if not dry:
        remove(found)
    return pruned


def find_removals(
    place: Path, *, models: bool = False, unfinished: bool = False, onerror: OnError = _raise
) -> list[Removal]:
    """Return what can be removed of the runs in a folder, or of one run, in the order of their paths.

    Args:
        place: A run folder, the folder of a search, or a folder with such folders, at any depth.
        models: Also the models of finished runs; their metrics, predictions and reports stay.
        unfinished: Also runs that failed or were stopped and have no model, as a whole.
        onerror: Receives the error of each folder that can't be read, and the others are looked at; else it is raised.

    Raises:
        ModelFileError: There is no such folder.
    """
    if not place.is_dir():
        hint = "name a run folder, or a folder with runs"
        raise ModelFileError("there is no such folder", where=str(place), hint=hint)
    return list(_search(place.absolute(), onerror, models=models, unfinished=unfinished))


def compute_freed_bytes(removals: Sequence[Removal]) -> list[int]:
    """Return how many bytes each removal frees; a file that keeps another name, as in MLflow's store, frees none.

    What several removals share counts for the first of them.
    """
    names: Counter[tuple[int, int]] = Counter()
    sizes: list[dict[tuple[int, int], os.stat_result]] = []
    for removal in removals:
        found = {}
        for status in _list_files(removal.paths):
            names[status.st_dev, status.st_ino] += 1
            found[status.st_dev, status.st_ino] = status
        sizes.append(found)
    counted: set[tuple[int, int]] = set()
    freed = []
    for found in sizes:
        gone = {key: status for key, status in found.items() if names[key] >= status.st_nlink and key not in counted}
        counted |= gone.keys()
        freed.append(sum(status.st_size for status in gone.values()))
    return freed


def remove(removals: Iterable[Removal]) -> None:
    """Remove what `find_removals` has found.

    Raises:
        ResourceError: A folder can't be written.
    """
    for removal in removals:
        with renew_receipt(removal.run):
            for path in removal.paths:
                with convert_disk_errors(path):
                    remove_path(path)


def _search(place: Path, onerror: OnError, *, models: bool, unfinished: bool) -> Iterator[Removal]:
    """Yield the removals in a folder and below it."""
    # With the state of the run or search that a folder lies in. No recursion: nobody bounds how deep folders are.
    waiting: list[tuple[Path, str | None]] = [(place, None)]
    while waiting:
        place, inside = waiting.pop()
        try:
            found, below, state = _visit(place, models=models, unfinished=unfinished, inside=inside)
        except OSError as error:
            onerror(error)
            continue
        yield from found
        waiting += [(path, state) for path in reversed(below)]


def _visit(
    place: Path, *, models: bool, unfinished: bool, inside: str | None
) -> tuple[list[Removal], list[Path], str | None]:
    """Return the removals of one folder, the folders in it to look at, and the state of the run that these are in."""
    run, found = RunFolder(place), list[Removal]()
    if run.status.is_file() and run.recipe.is_file():
        if is_in_progress(run):
            return [], [], None
        state = str(run.read_status().get("state"))
        if unfinished and inside is None and _is_worthless(run, state):
            return [Removal(place, "whole run", (place,))], [], None
        found = [*_look_at(run, state, models=models, inside=inside)]
        inside = state
    kept = (run_files.CHECKPOINTS, run_files.MODEL)
    # A link may lead to anywhere, to images for example.
    below = [path for path in sorted(place.iterdir()) if path.is_dir() and not path.is_symlink()]
    return found, [path for path in below if path.name not in kept], inside


def _look_at(run: RunFolder, state: str, *, models: bool, inside: str | None) -> Iterator[Removal]:
    """Yield what can be removed of one run that has ended."""
    # A trial failed or not: what resumes it, if anything does, is its search.
    ended = state == "finished" if inside is None else inside == "finished"
    if ended and _is_own_folder(run.checkpoints) and (ours := _list_own_checkpoints(run.checkpoints)):
        yield Removal(run.path, "checkpoints", ours)
    if ended and _is_own_folder(interrupted := run.path / run_files.INTERRUPTED):
        yield Removal(run.path, "interrupted attempts", (interrupted,))
    # Those in folders that go as a whole go with them.
    going = {run.checkpoints} if ended else set()
    if left := [path for path in find_leftovers(run) if path.parent not in going]:
        yield Removal(run.path, "leftovers", tuple(left))
    if models and state == "finished" and (held := [path for path in (run.keras_file, run.model) if path.exists()]):
        yield Removal(run.path, "model", tuple(held))


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _list_own_checkpoints(folder: Path) -> tuple[Path, ...]:
    """Return a folder of checkpoints, or what in it has names that a training gives: files of others stay."""
    entries = sorted(folder.iterdir())
    ours = tuple(path for path in entries if _CHECKPOINT_FILE.fullmatch(path.name))
    return (folder,) if len(ours) == len(entries) else ours


def _is_worthless(run: RunFolder, state: str) -> bool:
    """Return whether a run ended without a model and holds no other run, as a search or one with folds does."""
    if state == "finished" or run.model.exists() or run.keras_file.exists():
        return False
    return not any((run.path / name).exists() for name in (run_files.SEARCH, run_files.TRIALS, run_files.FOLDS))


def _list_files(paths: Iterable[Path]) -> Iterator[os.stat_result]:
    for path in paths:
        for file in (path, *path.rglob("*")) if path.is_dir() else (path,):
            if not file.is_dir():
                yield file.lstat()
