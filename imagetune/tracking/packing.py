"""An MLflow model of the ``keras`` flavour, made from RUN/model.keras.

`mlflow.keras.log_model` would load the model into Keras and write it again. The file is copied instead: the logged
model is the run's own, byte by byte, and a process that only syncs needs no Keras.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from imagetune.core import run_files
from imagetune.core.files import read_json_object

OWN_FOLDER = "imagetune_model"
"""Where RUN/model/ lies inside the MLflow model: what imagetune itself loads."""

_REQUIRED = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "mlflow")


@dataclass(frozen=True)
class ModelInfo:
    """Metadata of a Keras model for its MLmodel file.

    Attributes:
        input_shape: (height, width, channels) of an image; -1 is any.
        class_names: In the order of the outputs; empty when unknown.
        keras_version: The Keras that wrote the file.
        requirements: Pinned pip requirements for loading it.
    """

    input_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    keras_version: str
    requirements: tuple[str, ...]


def read_model_info(run_dir: Path) -> ModelInfo:
    """Read a model's metadata from model.keras, model/manifest.json, evaluation.json and lock.json.

    Raises:
        OSError, ValueError, KeyError: model.keras is no Keras file.
    """
    with zipfile.ZipFile(run_dir / run_files.KERAS_MODEL) as archive:
        config = json.loads(archive.read("config.json"))
        version = json.loads(archive.read("metadata.json"))["keras_version"]
    return ModelInfo(
        input_shape=_input_shape(config),
        class_names=_class_names(run_dir),
        keras_version=version,
        requirements=_requirements(_locked_versions(run_dir), version),
    )


def pack_model(run_dir: Path, folder: Path, info: ModelInfo, *, model_id: str, run_id: str, location: str) -> None:
    """Write the MLflow model of a run to ``folder``.

    The signature is (-1, height, width, 3) uint8, RGB 0..255, to (-1, classes) float32 probabilities.

    Args:
        run_dir: The run folder, with model.keras.
        folder: Empty folder.
        info: Metadata of the model, from `read_model_info`.
        model_id: MLflow's id of the logged model.
        run_id: MLflow's id of the run.
        location: MLflow's artifact location of the logged model.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    (folder / "data").mkdir(parents=True)
    shutil.copyfile(run_dir / run_files.KERAS_MODEL, folder / "data" / run_files.KERAS_MODEL)
    # `mlflow.keras` reads here which module loads the model.
    (folder / "data" / "keras_module.txt").write_text("keras", encoding="utf-8")
    # So that `imagetune predict models:/...` has manifest and thresholds, which the Keras file lacks.
    if (run_dir / run_files.MODEL).is_dir():
        shutil.copytree(run_dir / run_files.MODEL, folder / OWN_FOLDER)
    # Stated as well: to infer the requirements takes MLflow 5 to 8 seconds.
    _write_environment(folder, info.requirements)
    model = Model(
        artifact_path=location,
        run_id=run_id,
        model_id=model_id,
        model_uuid=model_id,
        # Stated, as MLflow can't infer it: an `input_example` fails for Keras models (mlflow#16183).
        signature=_signature(info),
        metadata={"class_names": list(info.class_names), "pixels": "RGB, 0..255"},
        model_size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    )
    model.add_flavor(
        "keras",
        data="data",
        keras_version=info.keras_version,
        keras_backend=os.environ.get("KERAS_BACKEND", "tensorflow"),
        save_exported_model=False,
    )
    pyfunc.add_to_model(model, loader_module="mlflow.keras", conda_env="conda.yaml", python_env="python_env.yaml")
    model.save(str(folder / "MLmodel"))


def _signature(info: ModelInfo) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    classes = len(info.class_names) or -1
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("uint8"), (-1, *info.input_shape))]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, classes))]),
    )


def _input_shape(config: Mapping[str, Any]) -> tuple[int, ...]:
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "InputLayer":
            # Older Keras files say batch_input_shape.
            shape = layer["config"].get("batch_shape") or layer["config"]["batch_input_shape"]
            return tuple(-1 if size is None else int(size) for size in shape[1:])
    raise ValueError("the model has no input layer")


def _class_names(run_dir: Path) -> tuple[str, ...]:
    for path in (run_dir / run_files.MODEL / "manifest.json", run_dir / run_files.EVALUATION):
        names = read_json_object(path).get("class_names")
        if isinstance(names, list):
            return tuple(str(name) for name in names)
    return ()


def _locked_versions(run_dir: Path) -> dict[str, str]:
    lock = read_json_object(run_dir / run_files.LOCK)
    for key in ("versions", "packages"):
        if isinstance(lock.get(key), dict):
            return {str(name).lower().replace("_", "-"): str(version) for name, version in lock[key].items()}
    return {}


def _requirements(locked: Mapping[str, str], keras_version: str) -> tuple[str, ...]:
    found = {"keras": keras_version}
    for name in _REQUIRED:
        # The versions that trained the model, as lock.json has them, before those of the machine that only syncs.
        if version := found.get(name) or locked.get(name) or _installed(name):
            found[name] = version
    return tuple(f"{name}=={version}" for name, version in found.items())


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _write_environment(folder: Path, requirements: tuple[str, ...]) -> None:
    """Write the three files from which MLflow builds an environment that can serve the model."""
    python = platform.python_version()
    pip = {"pip": list(requirements)}
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": [f"python={python}", "pip", pip]}
    virtual = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n", encoding="utf-8")
    (folder / "conda.yaml").write_text(yaml.safe_dump(conda, sort_keys=False), encoding="utf-8")
    (folder / "python_env.yaml").write_text(yaml.safe_dump(virtual, sort_keys=False), encoding="utf-8")
