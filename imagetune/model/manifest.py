"""The folder ``model/`` of a run: weights and a manifest, from which the same model is built again.

Nothing in it can run code: the manifest is plain data that our own functions build from, and the weights are numbers.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

import keras
import numpy as np
from pydantic import Field, ValidationError, model_validator

from imagetune.core.files import disk_errors, sha256_file, write_json
from imagetune.core.plugins import BACKBONES, plugin_package
from imagetune.core.version import read_version
from imagetune.data.loading.targets import ValueScale
from imagetune.errors import DivergedError, ModelFileError, RecipeError, ResourceError, WeightsError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model, value_scale_of
from imagetune.model.decision_rules import ConformalRule, OperatingPoint
from imagetune.model.out_of_distribution import Detector, OutOfDistribution, read_detector
from imagetune.model.test_time_augmentation import unfit_tta
from imagetune.model.trainable import leaf_layers
from imagetune.model.weights.h5_reader import open_weights
from imagetune.model.weights.matching import assign, match_layers
from imagetune.recipe.base import Fraction, NonNegative, Positive, PositiveInt, Section
from imagetune.recipe.base import Sequence as ListOf
from imagetune.recipe.data import ImageSettings, Task
from imagetune.recipe.model import ModelConfig
from imagetune.recipe.tracking import TTA

Finite = Annotated[float, Field(allow_inf_nan=False)]

MANIFEST = "manifest.json"
WEIGHTS = "model.weights.h5"
LARGEST_MANIFEST_BYTES = 16 << 20
DEFAULT_MAX_PIXELS = 100_000_000
# No backbone of the table gives fewer channels, and none reduces height and width by more than this.
MIN_CHANNELS = 512
LARGEST_REDUCTION = 64


class Manifest(Section):
    """What ``manifest.json`` says."""

    format: Literal["imagetune-model"] = "imagetune-model"
    """Says that this is our manifest."""
    version: Literal[1] = 1
    """Version of this layout."""
    imagetune: str
    """Version of imagetune that wrote it."""
    keras: str
    """Version of Keras that wrote it."""
    config: ModelConfig
    """Architecture; ``weights`` is only where training started from."""
    backbone_package: str | None = None
    """Package and version that the backbone is a plug-in of; None for ours, and in a manifest without the field."""
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"]
    """Number format of the computation."""
    task: Task = "single_label"
    """What the model predicts; a manifest without the field is of one class of several."""
    class_names: Annotated[ListOf[str], Field(min_length=1)]
    """Label of each output, in order; for regression what the number is called."""
    thresholds: ListOf[Fraction] = ()
    """Of multi_label: from which probability on each label is given; 0.5 where there are none."""
    label_separator: Annotated[str, Field(min_length=1)] = ";"
    """Of multi_label: what stands between the labels of a prediction."""
    value_mean: Finite = 0.0
    """Of regression: mean of the training labels, added to the normalised value."""
    value_std: Annotated[Finite, Field(gt=0)] = 1.0
    """Of regression: standard deviation of the training labels, the normalised value's unit."""
    image: ImageSettings
    """How an image becomes the model's input."""
    max_pixels: PositiveInt
    """Larger images are refused."""
    tta: ListOf[TTA] = ()
    """Versions of each image beside itself whose predictions are averaged; a manifest without the field has none."""
    temperature: Positive | None = None
    """Of probabilities: what divides their logits to make them calibrated; fitted on validation, None where it could
    not be."""
    conformal: ConformalRule | None = None
    """How prediction sets are made that hold the true one with a stated probability; chosen on validation."""
    operating_point: OperatingPoint | None = None
    """From which probability on the prediction is the class that matters; chosen on validation."""
    costs: ListOf[ListOf[NonNegative]] | None = None
    """What each mistake costs: a row a true class, a column a prediction; None where the recipe has no costs."""
    out_of_distribution: OutOfDistribution | None = None
    """From which score on an image is unlike those of training; None where no score was wanted or could be had."""
    weights_sha256: str
    """Hash of ``model.weights.h5``."""

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
            raise ValueError(f"operating_point: {self.operating_point.positive!r} is no class of the model")
        if self.costs is not None and [len(row) for row in self.costs] != [outputs] * outputs:
            raise ValueError(f"costs: no table of {outputs} x {outputs}")
        if self.task == "regression" and self.out_of_distribution and self.out_of_distribution.score == "energy":
            raise ValueError("out_of_distribution: numbers have no energy")
        return self

    @model_validator(mode="after")
    def _fitting_tta(self) -> Self:
        if unfit := unfit_tta(self.tta, self.image):
            raise ValueError(f"{unfit[0]} needs square images, not {self.image.height}x{self.image.width}")
        return self


@dataclass(frozen=True)
class LoadedModel:
    """A model with what is needed to use it.

    Attributes:
        model: (batch, height, width, 3) uint8 RGB to (batch, classes) float32 probabilities, or (batch, 1) numbers.
        class_names: Label of each output.
        image: How an image becomes the input.
        config: Backbone and head.
        max_pixels: Larger images are refused.
        sha256: Hash of the weights.
        tta: Versions of each image beside itself whose predictions are averaged.
        task: What a label is.
        thresholds: Of multi_label: from which probability on each label is given.
        label_separator: Of multi_label: what stands between the labels of a prediction.
        temperature: What divides the logits to make the probabilities calibrated; None where that isn't known.
        conformal: How prediction sets are made; None where that isn't known.
        operating_point: From which probability on the prediction is the class that matters; None without such a class.
        costs: What each mistake costs, (true class, prediction); None where that wasn't said.
        detector: What tells images unlike those of training; None where there is nothing that does.
    """

    model: keras.Model
    class_names: tuple[str, ...]
    image: ImageSettings
    config: ModelConfig
    max_pixels: int
    sha256: str
    tta: tuple[TTA, ...] = ()
    task: Task = "single_label"
    thresholds: tuple[float, ...] = ()
    label_separator: str = ";"
    temperature: float | None = None
    conformal: ConformalRule | None = None
    operating_point: OperatingPoint | None = None
    costs: tuple[tuple[float, ...], ...] | None = None
    detector: Detector | None = None


def save_model(  # noqa: PLR0913 - the values of a manifest, each by its name
    model: keras.Model,
    folder: Path,
    *,
    config: ModelConfig,
    class_names: Sequence[str],
    image: ImageSettings,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    tta: Sequence[TTA] = (),
    task: Task = "single_label",
    thresholds: Sequence[float] = (),
    label_separator: str = ";",
) -> None:
    """Write ``folder`` with weights and manifest; it takes the place of an earlier one when complete.

    Raises:
        DivergedError: Some weight is not a finite number.
        ResourceError: The disk is full or can't be written.
    """
    _require_finite(model)
    scale = value_scale_of(model) or ValueScale()
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tmp-model-") as name:
            fresh = Path(name) / "new"
            fresh.mkdir()
            model.save_weights(fresh / WEIGHTS)
            manifest = Manifest(
                imagetune=read_version(),
                keras=keras.__version__,
                config=config,
                backbone_package=plugin_package(BACKBONES, config.backbone),
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
                weights_sha256=sha256_file(fresh / WEIGHTS),
            )
            write_json(fresh / MANIFEST, manifest.model_dump(mode="json"))
            if folder.exists():
                folder.replace(Path(name) / "old")
            fresh.replace(folder)


def update_manifest(folder: Path, values: Mapping[str, object]) -> Manifest:
    """Give ``manifest.json`` what is known only when the model has been looked at, atomically.

    Args:
        folder: The folder ``model/`` of a run, or the run folder.
        values: Plain JSON values by the manifest's fields; the others, and the hash of the weights, stay.

    Raises:
        ModelFileError: There is no manifest, or it is corrupted.
        ResourceError: The disk is full or can't be written.
        ValueError: A value is not one that its field can have.
    """
    place = find_manifest(folder)
    content = {**read_manifest(place).model_dump(mode="json"), **values}
    manifest = Manifest.model_validate_json(json.dumps(content))
    write_json(place / MANIFEST, manifest.model_dump(mode="json"))
    return manifest


def load_model(folder: Path) -> LoadedModel:
    """Build the model of a run again and give it its weights.

    Args:
        folder: The folder ``model/`` of a run, or the run folder.

    Raises:
        ModelFileError: Something is missing, corrupted, changed since it was written, or hostile.
        ResourceError: Its backbone is a plug-in that is not installed here, or fails.
    """
    place = find_manifest(folder)
    manifest = read_manifest(place)
    _require_backbone(manifest, place)
    weights = verified_weights(place, manifest)
    size = (manifest.image.height, manifest.image.width)
    try:
        _require_plausible(manifest, weights.stat().st_size)
        with _precision_policy(manifest.precision):
            model = build_model(
                manifest.config,
                num_classes=len(manifest.class_names),
                image_size=size,
                task=manifest.task,
                scale=ValueScale(manifest.value_mean, manifest.value_std),
            )
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
        read_detector(place, manifest.out_of_distribution) if manifest.out_of_distribution else None,
    )


def find_manifest(folder: Path) -> Path:
    """Return the folder that holds the manifest: ``folder`` or its ``model/``.

    Raises:
        ModelFileError: Neither does.
    """
    for place in (folder, folder / "model"):
        if (place / MANIFEST).is_file():
            return place
    what = f"no model here: neither {MANIFEST} nor model/{MANIFEST}"
    raise ModelFileError(what, where=str(folder), hint="give the folder of a run that has finished")


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.json``.

    Raises:
        ModelFileError: It is corrupted, or from another version.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > LARGEST_MANIFEST_BYTES:
            raise ModelFileError(f"larger than {LARGEST_MANIFEST_BYTES} bytes", where=str(path))
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        what = f"not a manifest that imagetune {read_version()} can read: {field}: {first['msg']}"
        raise ModelFileError(what, where=str(path), hint="copy the folder again, or train again") from error
    except OSError as error:
        raise ModelFileError(f"can't be read: {error.strerror}", where=str(path)) from error


def verified_weights(folder: Path, manifest: Manifest) -> Path:
    """Return the path of the weights after checking their hash.

    Raises:
        ModelFileError: They are missing, or not those that the manifest was written with.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelFileError("missing", where=str(path), hint="copy the folder again, or train again")
    actual = sha256_file(path)
    if actual != manifest.weights_sha256:
        what = f"corrupted or replaced: SHA-256 {actual}, but {MANIFEST} says {manifest.weights_sha256}"
        raise ModelFileError(what, where=str(path), hint="copy the folder again, or train again")
    return path


def _require_finite(model: keras.Model) -> None:
    for weight in model.weights:
        if not np.isfinite(keras.ops.convert_to_numpy(weight)).all():
            what = f"{weight.path} holds numbers that are not finite: the model is not saved"
            raise DivergedError(what, hint="lower the learning rate")


def _require_backbone(manifest: Manifest, place: Path) -> None:
    """Refuse a model whose plug-in can't be used here: the file is good, the machine lacks something."""
    name, package = manifest.config.backbone, manifest.backbone_package
    if package is None:
        return
    if plugin_package(BACKBONES, name) is None:
        what = f"its backbone {name!r} is a plug-in of the package {package}, which is not installed"
        raise ResourceError(what, where=str(place), hint="install that package")
    try:
        get_backbone(name)
    except RecipeError as error:
        raise ResourceError(error.what, where=str(place), hint=error.hint) from error


def _require_plausible(manifest: Manifest, weights_bytes: int) -> None:
    """Refuse a manifest whose head would need more numbers than the weight file holds, before memory is taken."""
    head, image = manifest.config.head, manifest.image
    cells = (image.height // LARGEST_REDUCTION) * (image.width // LARGEST_REDUCTION) or 1
    # A plug-in's backbone may be as narrow as it likes.
    channels = MIN_CHANNELS if get_backbone(manifest.config.backbone).build is None else 1
    features = channels * (cells if head.pooling == "flatten" else 1)
    units = (features, *head.hidden, len(manifest.class_names))
    if 4 * sum(before * after for before, after in pairwise(units)) > weights_bytes:
        raise WeightsError(f"its head is larger than the {weights_bytes} bytes of {WEIGHTS}")


def _precision(model: keras.Model) -> Literal["float32", "mixed_bfloat16", "mixed_float16"]:
    inner = next(layer for layer in leaf_layers(model) if layer.weights)
    return inner.dtype_policy.name  # type: ignore[no-any-return]


@contextmanager
def _precision_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
