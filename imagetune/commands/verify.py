"""A finished run verified: files, images and weights by their hashes, metrics and predictions computed again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from imagetune.core import run_files
from imagetune.core.documents import name_foreign_document
from imagetune.core.messages import Say, say_nothing
from imagetune.core.text import format_count, format_list
from imagetune.errors import CheckpointError, DataError, ImagetuneError, ModelFileError, ResourceError, StoppedError
from imagetune.run_folder.folder import RunFolder, describe_state, is_in_progress, open_run_folder
from imagetune.run_folder.receipt import Difference, FileCheck, check_files
from imagetune.runs.open import find_run
from imagetune.runs.recompute import (
    Check,
    ImageCheck,
    check_images,
    check_metrics,
    check_predictions,
    check_pretrained_weights,
)
from imagetune.tracking.resolve import is_mlflow_uri

AnyCheck = TypeVar("AnyCheck", bound=Check)


@dataclass(frozen=True)
class Verification:
    """What the verification of a run has found.

    Attributes:
        folder: The folder of the run or the search.
        verified: How many files, images, weights, metrics and predictions are as recorded.
        differences: What isn't, of the run and its folds, or of a search and its winner.
        changed_inputs: Images and pretrained weights that aren't what the run has learned from.
        unchecked: What could not be compared, and why: a sentence each.
        notes: What is not compared by design: a sentence each.
    """

    folder: Path
    verified: Mapping[str, int]
    differences: tuple[Difference, ...] = ()
    changed_inputs: tuple[Difference, ...] = ()
    unchecked: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether everything could be compared and is as recorded."""
        return not (self.differences or self.changed_inputs or self.unchecked)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values, the folder as ``run``."""
        values = asdict(self)
        return {"run": str(values.pop("folder")), "holds": self.holds, **values}


def verify(run: str, *, data: Path | None = None, every_image: bool = False, say: Say = say_nothing) -> Verification:
    """Return how a finished run, or a search with its winner, differs from what it has recorded.

    Args:
        run: A folder, or a runs:/ or models:/ address.
        data: The folder or table where the images are now, if they have moved.
        every_image: Predict all training and validation images again, and not only some.
        say: Receives progress messages.

    Raises:
        ModelFileError: It is no run folder, or the run didn't finish.
        CheckpointError: A process is writing the run.
        TrackingError: There is no run or model at the address.
    """
    folder = _open(run)
    files = check_files(folder.path)
    say("files", f"{format_count(files.files, 'file')} as recorded")
    winner = RunFolder(folder.path / run_files.BEST)
    tested = winner if (folder.path / run_files.SEARCH).is_file() else folder
    images = _attempt(tested, ImageCheck, partial(check_images, tested, data=data))
    weights = _attempt(tested, Check, partial(check_pretrained_weights, tested))
    say("images", f"{images.verified} with the recorded content")
    folds = [RunFolder(folder.path / name) for name in files.runs if folder.path / name != tested.path]
    metrics = [_attempt(one, Check, partial(check_metrics, one)) for one in (tested, *folds)]
    say("metrics", "computed again from the predictions")
    again = partial(check_predictions, tested, images, every_image=every_image)
    predictions = _attempt(tested, Check, again)
    found: dict[str, Sequence[Check]] = {
        "images": [images],
        "weights": [weights],
        "metrics": metrics,
        "predictions": [predictions],
    }
    return _put_together(folder, files, found, fetched=is_mlflow_uri(run))


def _open(run: str) -> RunFolder:
    folder = find_run(run) if is_mlflow_uri(run) else open_run_folder(Path(run), trained=False)
    if is_in_progress(folder):
        what = "the run is in progress"
        raise CheckpointError(what, where=run, hint="wait for it to end")
    if not (folder.path / run_files.RECEIPT).is_file() and folder.read_status().get("state") != "finished":
        what = f"has no {run_files.RECEIPT}, which a run gets when it finishes ({describe_state(folder)})"
        raise ModelFileError(what, where=run, hint="go on with it by --resume, or verify another run")
    return folder


def _attempt(run: RunFolder, kind: type[AnyCheck], step: Callable[[], AnyCheck]) -> AnyCheck:
    """Return what a step has found; where a file that it needs can't be read, that is a difference."""
    try:
        with name_foreign_document(run.path, "a file of the run"):
            return step()
    except (StoppedError, ResourceError):
        raise
    except ImagetuneError as error:
        return kind(differences=(Difference(error.where or str(run.path), "a file that imagetune wrote", error.what),))


def _put_together(
    folder: RunFolder, files: FileCheck, found: Mapping[str, Sequence[Check]], *, fetched: bool
) -> Verification:
    checks = [check for each in found.values() for check in each]
    inputs = (*found["images"], *found["weights"])
    missing = tuple(Difference(name, "a file", "none") for name in files.missing)
    notes = [note for check in checks for note in check.notes]
    if files.unrecorded:
        names = format_list(files.unrecorded, most=3)
        notes.append(f"{format_count(len(files.unrecorded), 'file')} came after the run finished: {names}")
    if fetched and missing:
        # Of checkpoints, for example, MLflow gets no copy.
        notes.append(f"{format_count(len(missing), 'file')} of the run folder not in MLflow")
    if len(files.runs) and len(found["metrics"]) > 1:
        notes.append("the predictions of folds were not computed again: verify a fold's folder for them")
    return Verification(
        folder.path,
        {"files": files.files} | {name: sum(check.verified for check in each) for name, each in found.items()},
        (
            *files.differences,
            *(() if fetched else missing),
            *(one for name in ("metrics", "predictions") for check in found[name] for one in check.differences),
        ),
        tuple(one for check in inputs for one in check.differences),
        tuple(what for check in checks for what in check.unchecked),
        tuple(notes),
    )


def require_verified(verification: Verification, *, where: str) -> None:
    """Raise what a verification has found, where not everything holds.

    Raises:
        ModelFileError: A file, a metric or a prediction is not as recorded.
        DataError: Only images or pretrained weights have changed, or something could not be compared.
    """
    if verification.differences:
        what = f"{_count(verification.differences)} not what this run has recorded"
        hint = "copy the run folder again from where it was made, or trust it no longer"
        raise ModelFileError(what, where=where, hint=hint)
    if verification.changed_inputs:
        what = f"{_count(verification.changed_inputs)} not what this run has learned from or was tested on"
        raise DataError(what, where=where, hint="put the files back; everything else that could be compared holds")
    if verification.unchecked:
        what = f"not everything could be compared: {'; '.join(verification.unchecked)}"
        raise DataError(what, where=where, hint="everything else holds")


def _count(differences: Sequence[Difference]) -> str:
    places = list(dict.fromkeys(one.where for one in differences))
    return f"{format_list(places, most=5)} {'is' if len(places) == 1 else 'are'}"
