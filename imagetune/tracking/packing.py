"""The MLflow model of a run: model.keras as it is, and what answers for it, packed by MLflow's own API."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from PIL import Image

from imagetune.core import run_files
from imagetune.core.files import link_or_copy, read_json_object

OWN_FOLDER = "imagetune_model"
"""Where RUN/model/ lies inside the MLflow model: what imagetune itself loads."""
ARTIFACTS = "artifacts"
"""Where MLflow puts the files that a model is made of, model.keras among them."""

_SCRIPT = Path(__file__).with_name("mlflow_model.py")
_PARTS = {"model": run_files.KERAS_MODEL, "labels": run_files.LABELS, "predict": run_files.PREDICT_SCRIPT}
_REQUIRED = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "pillow", "mlflow")


@dataclass(frozen=True)
class ModelInfo:
    """Metadata of a run's model for MLflow.

    Attributes:
        task: What the model predicts.
        class_names: In the order of the outputs.
        size: (height, width) of its input in pixels.
        requirements: Pinned pip requirements for loading it.
    """

    task: str
    class_names: tuple[str, ...]
    size: tuple[int, int]
    requirements: tuple[str, ...]


def has_model(run_dir: Path) -> bool:
    """Return whether a run has written its model completely: model.keras and the two files beside it."""
    return all((run_dir / name).is_file() for name in _PARTS.values())


def read_model_info(run_dir: Path) -> ModelInfo:
    """Read a model's metadata from labels.json and lock.json.

    Raises:
        OSError, ValueError, KeyError: The files aren't those that imagetune writes.
    """
    labels = read_json_object(run_dir / run_files.LABELS)
    height, width = labels["size"]
    required = _list_requirements(_locked_versions(run_dir))
    return ModelInfo(str(labels["task"]), tuple(labels["class_names"]), (height, width), required)


def pack_model(run_dir: Path, folder: Path, info: ModelInfo, *, model_id: str, run_id: str, location: str) -> None:
    """Write the MLflow model of a run to ``folder``: pyfunc with encoded images in, and Keras's own flavour.

    Keras isn't loaded: the model is the run's file, byte by byte, and MLflow is told the signature and requirements
    that it would load the model for. So it takes half a second.

    Args:
        run_dir: The run folder, with `has_model`.
        folder: A folder that doesn't exist yet.
        info: Metadata of the model, from `read_model_info`.
        model_id: MLflow's id of the logged model.
        run_id: MLflow's id of the run.
        location: MLflow's artifact location of the logged model.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    described = {"class_names": list(info.class_names), "input": "image files, as bytes or in base64"}
    model = Model(artifact_path=location, run_id=run_id, model_id=model_id, model_uuid=model_id)
    # `mlflow.keras.load_model` opens the same file, for training on or for arrays of pixels.
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    version = next(line.partition("==")[2] for line in info.requirements if line.startswith("keras=="))
    model.add_flavor("keras", data=ARTIFACTS, keras_version=version, keras_backend=backend, save_exported_model=False)
    pyfunc.save_model(
        str(folder),
        python_model=str(_SCRIPT),
        artifacts={name: str(run_dir / file) for name, file in _PARTS.items()},
        signature=_build_signature(info),
        input_example=_draw_example(info.size),
        pip_requirements=list(info.requirements),
        metadata=described,
        mlflow_model=model,
    )


def list_own_files(run_dir: Path) -> Iterator[tuple[str, Path]]:
    """Yield the run's files that are in its MLflow model as they are, by their path in it."""
    yield f"{ARTIFACTS}/{run_files.KERAS_MODEL}", run_dir / run_files.KERAS_MODEL
    # So that `imagetune predict models:/...` has manifest and thresholds, which the Keras file lacks.
    for path in sorted((run_dir / run_files.MODEL).glob("*")):
        yield f"{OWN_FOLDER}/{path.name}", path


def name_model(recipe: Mapping[str, Any]) -> str:
    """Return the name of a run's logged model: recipe and backbone, in letters that MLflow takes."""
    parts = (str(recipe.get("name") or "model"), str((recipe.get("model") or {}).get("backbone") or ""))
    # MLflow refuses / : . % " and ' in a model's name.
    return re.sub(r"[^\w-]+", "-", "-".join(part for part in parts if part)).strip("-")[:200] or "model"


def link_into_store(path: Path, location: str, name: str) -> bool:
    """Link a file into a store of this machine, so that its weights lie on the disk once, and return whether it was.

    Args:
        path: The file.
        location: MLflow's artifact location of the logged model.
        name: The file's path in the model.
    """
    if not location.startswith("file:"):
        return False
    place = Path(url2pathname(urlsplit(location).path)) / name
    place.parent.mkdir(parents=True, exist_ok=True)
    # What a copy that broke off has left.
    place.unlink(missing_ok=True)
    link_or_copy(path, place)
    return True


def _build_signature(info: ModelInfo) -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, DataType, Map, Schema

    answer = (DataType.double, "value") if info.task == "regression" else (Map(DataType.double), "probabilities")
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.binary, "image")]),
        outputs=Schema([ColSpec(DataType.string, "label"), ColSpec(*answer)]),
    )


def _draw_example(size: tuple[int, int]) -> Any:
    """Return a table of one grey image: none of the user's own images leaves the machine for an example."""
    import pandas as pd

    content = io.BytesIO()
    Image.new("RGB", size[::-1], (128, 128, 128)).save(content, "PNG")
    return pd.DataFrame({"image": [content.getvalue()]})


def _locked_versions(run_dir: Path) -> dict[str, str]:
    versions = read_json_object(run_dir / run_files.LOCK).get("versions") or {}
    return {str(name).lower().replace("_", "-"): str(version) for name, version in versions.items()}


def _list_requirements(locked: dict[str, str]) -> tuple[str, ...]:
    # The versions that trained the model, as lock.json has them, before those of the machine that only syncs.
    found = {name: locked.get(name) or _find_version(name) for name in _REQUIRED}
    return tuple(f"{name}=={version}" for name, version in found.items() if version)


def _find_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
