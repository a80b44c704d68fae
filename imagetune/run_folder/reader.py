"""The files of a run folder read as values, for reports and comparisons, in whatever state the run ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from imagetune.core import run_documents as shapes
from imagetune.core.documents import read_document, read_document_lines
from imagetune.core.files import read_bounded_text
from imagetune.data.sources.labels import build_label_rule
from imagetune.data.splits.splits import read_split_rows
from imagetune.errors import ModelFileError
from imagetune.evaluation.predictions import Predictions, read_predictions
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.recipe.source_kinds import TABLE_SUFFIXES
from imagetune.run_folder.folder import RunFolder, refuse_links_out

_MAX_TEXT_BYTES = 16 << 20
# The names of splits in files, and those on pages.
SPLITS = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class RunFiles:
    """The contents of a run folder's files; that of a file which the run never wrote is empty.

    Attributes:
        folder: The run folder.
        recipe: The resolved recipe.
        recipe_text: The same as the text of recipe.yaml.
        status: The content of status.json.
        lock: The content of lock.json.
        epochs: The lines of metrics.jsonl.
        stages: The lines of stages.jsonl.
        evaluation: The content of evaluation.json.
        audit: The content of audit.json.
        tracking: The content of tracking.json.
        soup: The content of soup.json; empty where the weights are not the mean of other runs.
        rows: The rows of splits.csv: path, label, split, group.
    """

    folder: Path
    recipe: Recipe
    recipe_text: str
    status: Mapping[str, Any]
    lock: Mapping[str, Any]
    epochs: Sequence[Mapping[str, Any]]
    stages: Sequence[Mapping[str, Any]]
    evaluation: Mapping[str, Any]
    audit: Mapping[str, Any]
    tracking: Mapping[str, Any]
    soup: Mapping[str, Any]
    rows: Sequence[Mapping[str, str]]

    @property
    def tested_split(self) -> Mapping[str, Any] | None:
        """The metrics of the test split in evaluation.json; those of validation where nothing was held out."""
        splits = self.evaluation.get("splits", {})
        found: Mapping[str, Any] | None = splits.get("test") or splits.get("val")
        return found

    @property
    def tested_name(self) -> str:
        """The name of the split of `tested_split`: ``test`` or ``val``."""
        return "test" if "test" in self.evaluation.get("splits", {}) else "val"

    @property
    def images_root(self) -> Path:
        """The folder that relative paths of images start at."""
        return find_images_root(self.recipe.data.source)

    @cached_property
    def tested_predictions(self) -> Predictions | None:
        """The predictions for the split of `tested_split`; None where there is no such file."""
        path = RunFolder(self.folder).predictions(self.tested_name)
        if not path.exists():
            return None
        classes = (self.tested_split or {}).get("per_class", [])
        # Only multi_label has thresholds.
        thresholds = [found["threshold"] for found in classes if "threshold" in found]
        return read_predictions(path, rule=build_label_rule(self.recipe.data), thresholds=thresholds)


def find_images_root(source: str) -> Path:
    """Return the folder that relative paths of a run's images start at: the source itself, or that of its table."""
    path = Path(source)
    # By its suffix where the source is gone: the images may have moved, and the lock must still know their paths.
    return path.parent if path.suffix.lower() in TABLE_SUFFIXES and not path.is_dir() else path


def read_run(folder: Path) -> RunFiles:
    """Return the contents of a run folder.

    Raises:
        ModelFileError: It has no recipe.yaml, so it is no run folder, or a file in it isn't what imagetune writes.
        RecipeError: Its recipe can't be read.
        DataError: Its splits.csv isn't what imagetune writes.
    """
    run = RunFolder(folder.absolute())
    if not run.recipe.is_file():
        hint = "give a run folder such as runs/NAME-TIME-ID"
        raise ModelFileError(f"is no run folder: it has no {run.recipe.name}", where=str(folder), hint=hint)
    refuse_links_out(run.path)
    return RunFiles(
        folder=run.path,
        recipe=load_recipe(run.recipe).recipe,
        recipe_text=read_bounded_text(run.recipe, max_bytes=_MAX_TEXT_BYTES),
        status=read_document(run.status, shapes.STATUS),
        lock=read_document(run.lock, shapes.LOCK),
        epochs=read_epochs(run.metrics),
        stages=read_document_lines(run.stages, shapes.STAGE),
        evaluation=read_evaluation(run.evaluation),
        audit=read_document(run.audit, shapes.AUDIT),
        tracking=read_document(run.tracking, shapes.TRACKING),
        soup=read_document(run.soup, shapes.SOUP),
        rows=list(read_split_rows(run.splits)) if run.splits.exists() else [],
    )


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return the content of evaluation.json; empty where there is no such file.

    Raises:
        ModelFileError: It isn't what imagetune writes.
    """
    return read_document(path, shapes.EVALUATION)


def read_epochs(path: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; none where there is no such file.

    Raises:
        ModelFileError: The file isn't what imagetune writes.
    """
    return read_document_lines(path, shapes.EPOCH)
