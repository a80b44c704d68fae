"""The run folder: paths of a run's files, its creation, its status, and which process may write it."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from imagetune.core import run_files
from imagetune.core.documents import read_document
from imagetune.core.files import (
    append_json_line,
    convert_disk_errors,
    format_json,
    overwrite_in_place,
    write_json,
    write_text,
)
from imagetune.core.leftovers import list_leftovers, name_temporary
from imagetune.core.run_documents import STATUS
from imagetune.errors import CheckpointError, ModelFileError, RecipeError, ResourceError
from imagetune.recipe.printing import format_recipe
from imagetune.recipe.schema import Recipe

RUNS = "runs"
State = Literal["running", "finished", "failed", "killed"]
_SHORT_ERROR = 500


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's files; see the public contract in docs/architecture.md."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe: recipe.yaml."""
        return self.path / run_files.RECIPE

    @property
    def lock(self) -> Path:
        """Versions, platform, seeds and hashes, for repeating the run: lock.json."""
        return self.path / run_files.LOCK

    @property
    def splits(self) -> Path:
        """The split of each image: splits.csv."""
        return self.path / run_files.SPLITS

    @property
    def audit(self) -> Path:
        """The audit of the images: audit.json."""
        return self.path / run_files.AUDIT

    @property
    def status(self) -> Path:
        """State and progress of the run: status.json."""
        return self.path / run_files.STATUS

    @property
    def stages(self) -> Path:
        """A line of JSON for each stage: stages.jsonl."""
        return self.path / run_files.STAGES

    @property
    def metrics(self) -> Path:
        """A line of JSON for each epoch: metrics.jsonl."""
        return self.path / run_files.METRICS

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / run_files.CHECKPOINTS

    @property
    def keras_file(self) -> Path:
        """The model for plain Keras: model.keras."""
        return self.path / run_files.KERAS_MODEL

    @property
    def model(self) -> Path:
        """The folder of the model for imagetune: weights and manifest."""
        return self.path / run_files.MODEL

    @property
    def evaluation(self) -> Path:
        """Every metric with its confidence interval: evaluation.json."""
        return self.path / run_files.EVALUATION

    @property
    def soup(self) -> Path:
        """The members of a model soup: soup.json."""
        return self.path / run_files.SOUP

    @property
    def report(self) -> Path:
        """The report: report.html."""
        return self.path / run_files.REPORT

    @property
    def model_card(self) -> Path:
        """The model card, in Markdown."""
        return self.path / run_files.MODEL_CARD

    @property
    def tracking(self) -> Path:
        """The MLflow run, and the files that have been sent to it: tracking.json."""
        return self.path / run_files.TRACKING

    @property
    def exports(self) -> Path:
        """The comparisons of exports with the model, a folder each."""
        return self.path / run_files.EXPORTS

    @property
    def debug_log(self) -> Path:
        """The traceback of a failed run: debug.log."""
        return self.path / run_files.DEBUG_LOG

    def predictions(self, split: str) -> Path:
        """The predictions for a split, a CSV file."""
        return self.path / run_files.PREDICTIONS / f"{split}.csv"

    def fold(self, number: int) -> Path:
        """The run folder of a fold, counted from 1."""
        return self.path / run_files.FOLDS / f"fold-{number}"

    def write_status(
        self, state: State, *, stage: str = "", epoch: int = 0, step: int = 0, error: str | None = None
    ) -> None:
        """Replace status.json, with the id of this process; on a full disk it is overwritten where it lies.

        Raises:
            ResourceError: It can't be written either way.
        """
        # The process id lets others tell a running run from one that was killed, which can't say so itself.
        status = {"state": state, "stage": stage, "epoch": epoch, "step": step, "error": error, "pid": os.getpid()}
        try:
            write_json(self.status, status)
        except ResourceError:
            # Not atomic, and still better than a dead run that calls itself running. Short, to fit into its one block.
            if not any(
                overwrite_in_place(self.status, format_json(status | {"error": short}))
                for short in (error and error[:_SHORT_ERROR], None)
            ):
                raise

    def read_status(self) -> dict[str, Any]:
        """Return the content of status.json; empty where there is none, or none that imagetune has written."""
        with contextlib.suppress(ModelFileError):
            return read_document(self.status, STATUS)
        return {}

    def write_evaluation(self, document: Mapping[str, Any]) -> None:
        """Replace evaluation.json by a document of JSON values."""
        write_json(self.evaluation, document)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Append the metrics of an epoch to metrics.jsonl."""
        append_json_line(self.metrics, line)

    def append_stage(self, line: Mapping[str, Any]) -> None:
        """Append a stage, with the learning rate of each block, to stages.jsonl."""
        append_json_line(self.stages, line)


def check_run_place(run_dir: Path | None, *, begun: bool = False) -> None:
    """Make sure that a run folder can be made, before any work is done; nothing is left behind.

    Args:
        run_dir: The run folder; None for one below runs/.
        begun: Whether the folder may hold a run, which is gone on with.

    Raises:
        RecipeError: The place can't be written to.
        CheckpointError: The folder holds a run already.
    """
    # A file in the place of the folder is occupied, too.
    occupied = run_dir is not None and run_dir.exists() and any(run_dir.iterdir() if run_dir.is_dir() else [run_dir])
    if run_dir is not None and occupied and not begun:
        raise _build_occupied_error(RunFolder(run_dir))
    place = run_dir.absolute() if run_dir else Path(RUNS).absolute()
    # The nearest folder that exists decides whether those below it can be made.
    while not place.exists():
        place = place.parent
    try:
        # Permission bits say too little: root may write anywhere but on a read-only disk. So it is tried.
        Path(tempfile.mkdtemp(dir=place, prefix=name_temporary())).rmdir()
    except OSError as error:
        hint = "choose another place with --run-dir"
        what = f"the run folder can't be made here: {error.strerror}"
        raise RecipeError(what, where=str(place), hint=hint) from error


def locate_run_folder(path: Path) -> RunFolder:
    """Return the folder at a path that a user named, by its absolute path."""
    # Only a path with .. is resolved: a symbolic link that the user named stays in the folder's name.
    return RunFolder(path.resolve() if ".." in path.parts else path.absolute())


def create_run_folder(recipe: Recipe, run_dir: Path | None) -> RunFolder:
    """Make a run folder, ``runs/<recipe name>-<time>-<id>`` by default, and write status and resolved recipe.

    Raises:
        CheckpointError: The folder holds a run already.
        ResourceError: The disk is full.
    """
    # The time sorts runs; the id separates two that start in the same second.
    path = run_dir or Path(RUNS) / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    folder = locate_run_folder(path)
    try:
        # A folder that the user named may exist; a generated name that exists is that of another run.
        folder.path.mkdir(parents=True, exist_ok=run_dir is not None)
    except OSError as error:
        raise ResourceError(f"can't make the run folder: {error.strerror}", where=str(path)) from error
    # Only this can tell two processes apart that were given one folder: `mkdir` above accepts one that exists.
    _claim(folder)
    # Status before recipe: from here on, whoever looks in finds a run with a process.
    folder.write_status("running")
    try:
        write_recipe(recipe, folder.recipe)
    except BaseException as error:
        with suppress(ResourceError):
            folder.write_status("failed", error=str(error))
        raise
    return folder


def reopen_run_folder(folder: RunFolder, recipe: Recipe) -> None:
    """Make the folder of a stopped run that of one in progress, with the recipe as it is now.

    Raises:
        ResourceError: The disk is full.
    """
    with contextlib.suppress(OSError):
        for leftover in find_leftovers(folder):
            remove_path(leftover)
        folder.debug_log.unlink(missing_ok=True)
    folder.write_status("running")
    write_recipe(recipe, folder.recipe)


def write_recipe(recipe: Recipe, path: Path, *, heading: Iterable[str] = ()) -> None:
    """Write a resolved recipe as YAML, without the password of its tracking server: run folders get shared.

    Args:
        recipe: The recipe.
        path: The file.
        heading: Lines of a comment at the head of the file.
    """
    # One line each: a line break in a name would end the comment and become YAML.
    comment = "".join(f"# {' '.join(line.split())}\n" for line in heading)
    write_text(path, comment + format_recipe(recipe))


def open_run_folder(path: Path, *, trained: bool = True) -> RunFolder:
    """Return the folder of an existing run.

    Args:
        path: The folder.
        trained: Whether the run must have a model; False also accepts a run that ended before.

    Raises:
        ModelFileError: It is no run folder, or has no model yet.
    """
    folder = RunFolder(path.absolute())
    if not path.is_dir():
        hint = "give a run folder such as runs/NAME-TIME-ID, or runs:/ID or models:/NAME/VERSION"
        raise ModelFileError("no such run folder", where=str(path), hint=hint)
    # A model's folder appears only when it is complete: with its manifest all of it is there.
    begun = bool(folder.read_status()) or folder.recipe.is_file()
    if not (folder.model / "manifest.json").is_file() and (trained or not begun):
        hint = f"train it again in a new folder: imagetune fit {folder.recipe}" if folder.recipe.is_file() else ""
        raise ModelFileError(f"has no trained model ({describe_state(folder)})", where=str(path), hint=hint)
    refuse_links_out(path)
    with contextlib.suppress(OSError):
        for leftover in find_leftovers(folder):
            remove_path(leftover)
    return folder


def refuse_links_out(folder: Path) -> None:
    """Refuse a run folder in which a link leads out of it: what is written there later would be written elsewhere.

    Raises:
        ModelFileError: There is such a link, at any depth.
    """
    root = folder.resolve()
    # No recursion: whoever made the folder may have nested deeper than Python's own stack.
    waiting = [folder]
    while waiting:
        for path in _list_present(waiting.pop()):
            if not path.is_symlink():
                waiting += [path] if path.is_dir() else []
            elif not Path(os.path.realpath(path)).is_relative_to(root):
                hint = "put what it leads to in its place, or remove it"
                raise ModelFileError("is a link out of the run folder: refused", where=str(path), hint=hint)


def _list_present(folder: Path) -> list[Path]:
    # A run in progress writes aside and renames: what was listed a moment ago may be gone.
    with suppress(FileNotFoundError):
        return list(folder.iterdir())
    return []


def find_leftovers(folder: RunFolder) -> list[Path]:
    """Return the temporary files that killed processes have left in a run folder; none in any other folder."""
    if not folder.status.is_file() or is_in_progress(folder):
        return []
    predictions = folder.path / run_files.PREDICTIONS
    places = (folder.path, folder.checkpoints, folder.model, predictions, folder.path / run_files.PLOTS)
    # A link may lead to anywhere, to images for example.
    return [path for place in places if place.is_dir() and not place.is_symlink() for path in list_leftovers(place)]


def remove_path(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it.

    Raises:
        OSError: It can't be removed.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _claim(folder: RunFolder) -> None:
    """Make this process the only writer of a folder; exclusive creation of a file decides between two of them."""
    try:
        with convert_disk_errors(folder.path), folder.status.open("x", encoding="utf-8") as file:
            # Never empty, as whoever looks in this moment expects JSON.
            file.write("{}")
    except ResourceError as error:
        if isinstance(error.__cause__, FileExistsError):
            raise _build_occupied_error(folder) from error
        folder.status.unlink(missing_ok=True)
        raise


def _build_occupied_error(folder: RunFolder) -> CheckpointError:
    if writer := _find_writer(folder):
        return CheckpointError(
            f"process {writer} is writing this run", where=str(folder.path), hint="wait for it to end"
        )
    state = folder.read_status().get("state")
    held = "files of something else" if state is None else f"a run that is {state}"
    if state == "running":
        held = "a run whose process has died"
    hint = "choose another --run-dir or an empty folder"
    if state is not None and state != "finished":
        hint = suggest_continuation(folder)
    return CheckpointError(f"the folder holds {held}", where=str(folder.path), hint=hint)


def suggest_continuation(folder: RunFolder) -> str:
    """Return how to go on with a run or a search that was stopped before its end, as a hint."""
    return f"go on with it by the same command with --run-dir {folder.path} --resume"


def _find_writer(folder: RunFolder) -> int | None:
    """Return the id of the process that is writing a run; None where there is none."""
    status = folder.read_status()
    pid = status.get("pid")
    alive = status.get("state") == "running" and isinstance(pid, int) and psutil.pid_exists(pid)
    return pid if alive else None


def is_in_progress(folder: RunFolder) -> bool:
    """Return whether a process is writing a run; False where it has died, whatever status.json says."""
    return _find_writer(folder) is not None


def describe_state(folder: RunFolder) -> str:
    """Return a phrase on the state of a run, for messages.

    A process that was killed left ``running`` in status.json, so it is checked that the process still exists.
    """
    state = folder.read_status().get("state")
    if state == "running" and not _find_writer(folder):
        return "its process has died"
    return "it is no run folder" if state is None else f"its state is {state}"
