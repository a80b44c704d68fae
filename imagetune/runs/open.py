"""Finished runs opened again: their folder, their model and their splits."""

from __future__ import annotations

from pathlib import Path

from imagetune.data.splits.splits import Splits, read_splits_csv
from imagetune.model.loaded import LoadedModel
from imagetune.model.manifest import load_model
from imagetune.recipe.sections.data import DataConfig
from imagetune.run_folder.folder import RunFolder, open_run_folder
from imagetune.run_folder.reader import find_images_root
from imagetune.tracking.resolve import is_mlflow_uri, resolve_run


def find_run(run: str, *, uri: str | None = None) -> RunFolder:
    """Return the folder of a finished run; that of an MLflow address is downloaded.

    Args:
        run: A folder, or a runs:/ or models:/ address.
        uri: The MLflow store of such an address; by default MLflow's own setting.

    Raises:
        ModelFileError: It is no run folder, or has no model yet.
        TrackingError: There is no run or model at the address.
    """
    return open_run_folder(resolve_run(run, uri=uri) if is_mlflow_uri(run) else Path(run))


def open_run(run: str) -> tuple[RunFolder, LoadedModel]:
    """Return a run's folder and model; ``run`` is a folder, or a runs:/ or models:/ address."""
    folder = find_run(run)
    return folder, load_model(folder.model)


def read_run_splits(folder: RunFolder, config: DataConfig, class_names: tuple[str, ...]) -> Splits:
    """Return the images of a finished run in the splits it was trained with, from its splits.csv.

    Args:
        folder: The run folder.
        config: The data section of its recipe.
        class_names: The class of each of the model's outputs.

    Raises:
        DataError: splits.csv is missing or corrupted.
    """
    return read_splits_csv(folder.splits, root=find_images_root(config.source), class_names=class_names)
