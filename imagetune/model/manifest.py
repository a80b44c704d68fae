"""Saving and loading of models: the folder ``model/`` of a run, with weights and a manifest.

The same model is built again from them. Nothing in the folder can run code: the manifest is plain data that our own
functions build from, and the weights are numbers.
"""

from __future__ import annotations

import io
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

import keras
import numpy as np
from pydantic import Field, ValidationError, model_validator

from imagetune.core.documents import check_format_version
from imagetune.core.files import compute_file_sha256, convert_disk_errors, read_json, write_json
from imagetune.core.leftovers import name_temporary
from imagetune.core.plugins import BACKBONES, describe_plugin_package
from imagetune.core.version import read_version
from imagetune.data.loading.targets import ValueScale
from imagetune.errors import DivergedError, ModelFileError, RecipeError, ResourceError, WeightsError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import POOLING, build_model, find_value_scale
from imagetune.model.decision_rules import ConformalRule, OperatingPoint
from imagetune.model.keras_settings import keras_settings
from imagetune.model.loaded import LoadedModel
from imagetune.model.out_of_distribution import Detector, OutOfDistribution, read_detector
from imagetune.model.plausible import require_memory, require_plausible_head
from imagetune.model.test_time_augmentation import find_unfit_tta
from imagetune.model.trainable import list_leaf_layers
from imagetune.model.weights.h5_reader import open_weights
from imagetune.model.weights.matching import assign, match_layers
from imagetune.recipe.sections.base import Fraction, NonNegative, Positive, Section
from imagetune.recipe.sections.base import Sequence as ListOf
from imagetune.recipe.sections.data import ImageSettings, MaxPixels
from imagetune.recipe.sections.evaluate import TTATransform
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.tasks import Task

Finite = Annotated[float, Field(allow_inf_nan=False)]

MANIFEST = "manifest.json"
WEIGHTS = "model.weights.h5"
LARGEST_MANIFEST_BYTES = 16 << 20
LARGEST_WEIGHTS_BYTES = 4 << 30
DEFAULT_MAX_PIXELS = 100_000_000


class Manifest(Section):
    """The content of ``manifest.json``: architecture, labels, image settings, decision rules and hashes."""

    format: Literal["imagetune-model"] = "imagetune-model"
    """Name of this file format."""
    format_version: Literal[1] = 1
    """Version of this file format."""
    imagetune: str
    """Version of imagetune that wrote the manifest."""
    keras: str
    """Version of Keras that wrote the weights."""
    config: ModelConfig
    """Architecture: backbone and head; its ``weights`` say only what training started from."""
    weights_license: str | None = None
    """Licence of the weights that training started from, as an SPDX identifier; None where it is unknown, or there were
    none."""
    backbone_package: str | None = None
    """Package and version of the plug-in that the backbone comes from; None for a built-in one."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    """Number format of the computation."""
    task: Task = "single_label"
    """What the model predicts; in a manifest without the field, one class of several."""
    class_names: Annotated[ListOf[str], Field(min_length=1)]
    """Name of each output, in order; for regression the name of the number."""
    thresholds: ListOf[Fraction] = ()
    """For multi_label: the probability from which on each label is predicted; 0.5 where the list is empty."""
    label_separator: Annotated[str, Field(min_length=1)] = ";"
    """For multi_label: text between the labels of a prediction."""
    value_mean: Finite = 0.0
    """For regression: mean of the training labels, added to the scaled output."""
    value_std: Annotated[Finite, Field(gt=0)] = 1.0
    """For regression: standard deviation of the training labels, which the output is multiplied by."""
    image: ImageSettings
    """How an image file becomes the model's input."""
    max_pixels: MaxPixels
    """Largest number of pixels of an image; larger ones are refused."""
    tta: ListOf[TTATransform] = ()
    """Test-time augmentation: transforms whose predictions are averaged with the image's own; by default none."""
    temperature: Positive | None = None
    """Temperature that divides the logits to calibrate probabilities, fitted on validation; None where it could not be
    fitted."""
    conformal: ConformalRule | None = None
    """Conformal rule: how prediction sets are made that hold the true class with a stated probability; None without."""
    operating_point: OperatingPoint | None = None
    """Operating point: the probability from which on a class of interest is predicted; None without such a class."""
    costs: ListOf[ListOf[NonNegative]] | None = None
    """Cost of each mistake: a row for each true class, a column for each predicted one; None without costs."""
    out_of_distribution: OutOfDistribution | None = None
    """Out-of-distribution rule: score and threshold; None where no score was wanted or could be computed."""
    weights_sha256: str
    """SHA-256 of ``model.weights.h5``."""

    @model_validator(mode="after")
    def _fitting_outputs(self) -> Self:
        outputs = len(self.class_names)
        if self.task == "regression" and outputs != 1:
            raise ValueError(f"class_names: regression has one output, not {outputs}")
        if self.task in ("single_label", "ordinal") and outputs < 2:
            raise ValueError(f"class_names: {self.task} needs at least 2 classes, not {outputs}")
        if self.thresholds and len(self.thresholds) != outputs:
            raise ValueError(f"{len(self.thresholds)} thresholds for {outputs} outputs")
        if self.operating_point is not None and self.operating_point.positive not in self.class_names:
            raise ValueError(f"operating_point: {self.operating_point.positive!r} is not a class of the model")
        if self.costs is not None and [len(row) for row in self.costs] != [outputs] * outputs:
            raise ValueError(f"costs: the table is not {outputs} x {outputs}")
        if self.task == "regression" and self.out_of_distribution and self.out_of_distribution.score == "energy":
            raise ValueError("out_of_distribution: regression has no energy score")
        return self

    @model_validator(mode="after")
    def _fitting_tta(self) -> Self:
        if unfit := find_unfit_tta(self.tta, self.image):
            raise ValueError(f"{unfit[0]} needs square images, not {self.image.height}x{self.image.width}")
        return self


def save_model(  # noqa: PLR0913 - the values of a manifest, each by its name
    model: keras.Model,
    folder: Path,
    *,
    config: ModelConfig,
    class_names: Sequence[str],
    image: ImageSettings,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    tta: Sequence[TTATransform] = (),
    task: Task = "single_label",
    thresholds: Sequence[float] = (),
    label_separator: str = ";",
    weights_license: str | None = None,
) -> None:
    """Write weights and manifest to ``folder``, which replaces an earlier one only when complete.

    Raises:
        DivergedError: A weight is not a finite number.
        ResourceError: The disk is full or can't be written.
    """
    _require_finite(model)
    scale = find_value_scale(model) or ValueScale()
    with convert_disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that taking its place is a rename within one file system.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=name_temporary()) as name:
            fresh = Path(name) / "new"
            fresh.mkdir()
            _write_weights(model, fresh / WEIGHTS)
            manifest = Manifest(
                imagetune=read_version(),
                keras=keras.__version__,
                config=config,
                weights_license=weights_license,
                backbone_package=describe_plugin_package(BACKBONES, config.backbone),
                precision=_precision(model),
                task=task,
                class_names=tuple(class_names),
                thresholds=tuple(thresholds),
                label_separator=label_separator,
                value_mean=scale.mean,
                value_std=scale.std,
                image=image,
                max_pixels=max_pixels,
                tta=tuple(tta),
                weights_sha256=compute_file_sha256(fresh / WEIGHTS),
            )
            write_json(fresh / MANIFEST, manifest.model_dump(mode="json"))
            # A rename can't replace a folder that isn't empty.
            if folder.exists():
                folder.replace(Path(name) / "old")
            fresh.replace(folder)


class _MemoryFile(io.BytesIO):
    """Memory that Keras takes for a weight file by its name."""

    def __str__(self) -> str:
        return WEIGHTS


def _write_weights(model: keras.Model, path: Path) -> None:
    """Write a model's weights by way of memory: HDF5 crashes the process when a disk becomes full under it."""
    memory = _MemoryFile()
    model.save_weights(memory)
    path.write_bytes(memory.getbuffer())


def update_manifest(folder: Path, values: Mapping[str, object]) -> Manifest:
    """Add what only the evaluation knows to ``manifest.json``, atomically, and return the new manifest.

    Args:
        folder: The folder ``model/`` of a run, or the run folder.
        values: Plain JSON values by field of the manifest; other fields, and the hash of the weights, stay.

    Raises:
        ModelFileError: There is no manifest, or it is corrupted.
        ResourceError: The disk is full or can't be written.
        ValueError: A value is not valid for its field.
    """
    place = find_manifest(folder)
    content = {**read_manifest(place).model_dump(mode="json"), **values}
    manifest = Manifest.model_validate_json(json.dumps(content))
    write_json(place / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def load_model(folder: Path) -> LoadedModel:
    """Return the model of a run, rebuilt from its manifest and with its verified weights.

    Args:
        folder: The folder ``model/`` of a run, or the run folder.

    Raises:
        ModelFileError: A file is missing, corrupted, changed since it was written, or hostile.
        ResourceError: Its backbone is a plug-in that is not installed here, or that fails; or one image needs more
            memory than there is.
    """
    place = find_manifest(folder)
    manifest = read_manifest(place)
    _require_backbone(manifest, place)
    weights = verify_weights(place, manifest)
    size = (manifest.image.height, manifest.image.width)
    try:
        require_plausible_head(
            manifest.config, manifest.image, len(manifest.class_names), weights_bytes=weights.stat().st_size
        )
        with keras_settings(manifest.precision):
            model = build_model(
                manifest.config,
                num_classes=len(manifest.class_names),
                image_size=size,
                task=manifest.task,
                scale=ValueScale(manifest.value_mean, manifest.value_std),
            )
        require_memory(model, place)
        with open_weights(weights) as stored:
            assign(match_layers(model, stored))
    except (RecipeError, WeightsError) as error:
        raise ModelFileError(error.what, where=str(place), hint="train again, or copy the folder again") from error
    return LoadedModel(
        model,
        manifest.class_names,
        manifest.image,
        manifest.config,
        manifest.max_pixels,
        manifest.weights_sha256,
        manifest.tta,
        manifest.task,
        manifest.thresholds,
        manifest.label_separator,
        manifest.temperature,
        manifest.conformal,
        manifest.operating_point,
        manifest.costs,
        _read_detector(place, manifest, model),
    )


def _read_detector(place: Path, manifest: Manifest, model: keras.Model) -> Detector | None:
    width, rule = math.prod(model.get_layer(POOLING).output.shape[1:]), manifest.out_of_distribution
    return read_detector(place, rule, width=width, outputs=len(manifest.class_names)) if rule else None


def find_manifest(folder: Path) -> Path:
    """Return the folder that holds the manifest: ``folder`` or its ``model/``.

    Raises:
        ModelFileError: Neither holds one.
    """
    for place in (folder, folder / "model"):
        if (place / MANIFEST).is_file():
            return place
    what = f"no model here: neither {MANIFEST} nor model/{MANIFEST}"
    raise ModelFileError(what, where=str(folder), hint="give the folder of a run that has finished")


def read_manifest(folder: Path) -> Manifest:
    """Return the validated content of ``manifest.json``.

    Raises:
        ModelFileError: It is missing, corrupted, or from another version.
    """
    path = folder / MANIFEST
    try:
        # Not by pydantic's own reader of JSON, in which an empty object takes hundreds of bytes.
        content = read_json(path, max_bytes=LARGEST_MANIFEST_BYTES)
        if isinstance(content, dict):
            check_format_version(content, path)
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        what = f"not a manifest that imagetune {read_version()} can read: {field}: {first['msg']}"
        raise ModelFileError(what, where=str(path), hint="copy the folder again, or train again") from error
    except (OSError, ValueError) as error:
        unread = f"not a manifest that imagetune {read_version()} can read: {error}"
        what = f"can't be read: {error.strerror}" if isinstance(error, OSError) else unread
        raise ModelFileError(what, where=str(path), hint="copy the folder again") from error


def verify_weights(folder: Path, manifest: Manifest) -> Path:
    """Return the path of a model's weights, once their hash is checked.

    Raises:
        ModelFileError: The weights are missing, or not those that the manifest was written with.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelFileError("missing", where=str(path), hint="copy the folder again, or train again")
    # Before it is hashed, which takes a second a gigabyte; a sparse file of terabytes takes no disk.
    if path.stat().st_size > LARGEST_WEIGHTS_BYTES:
        raise ModelFileError(f"larger than {LARGEST_WEIGHTS_BYTES:,} bytes", where=str(path))
    actual = compute_file_sha256(path)
    if actual != manifest.weights_sha256:
        what = f"corrupted or replaced: SHA-256 {actual}, but {MANIFEST} says {manifest.weights_sha256}"
        raise ModelFileError(what, where=str(path), hint="copy the folder again, or train again")
    return path


def _require_finite(model: keras.Model) -> None:
    # A model of NaN would be saved and exported without an error, and only fail in use.
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            what = f"{weight.path} holds numbers that are not finite: the model is not saved"
            raise DivergedError(what, hint="lower the learning rate")


def _require_backbone(manifest: Manifest, place: Path) -> None:
    """Refuse a model whose plug-in can't be used on this machine, although its files are good."""
    name, package = manifest.config.backbone, manifest.backbone_package
    if package is None:
        return
    if describe_plugin_package(BACKBONES, name) is None:
        what = f"its backbone {name!r} is a plug-in of the package {package}, which is not installed"
        raise ResourceError(what, where=str(place), hint="install that package")
    try:
        get_backbone(name)
    except RecipeError as error:
        raise ResourceError(error.what, where=str(place), hint=error.hint) from error


def _precision(model: keras.Model) -> Literal["float32", "mixed_bfloat16", "mixed_float16"]:
    # Preprocessing and logits are always float32; the first layer with weights has the model's own format.
    inner = next(layer for layer in list_leaf_layers(model) if layer.weights)
    return inner.dtype_policy.name  # type: ignore[no-any-return]
