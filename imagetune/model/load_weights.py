"""Loading of pretrained weights into a backbone: ImageNet, HED, a file, a folder of Hugging Face, or an earlier run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np

from imagetune.core.files import compute_file_sha256
from imagetune.core.text import suggest_name
from imagetune.errors import RecipeError, WeightsError
from imagetune.model.backbones.architectures import LiteArchitecture, TransformerArchitecture
from imagetune.model.backbones.efficientnet_lite import convert_torch_weights
from imagetune.model.backbones.table import Backbone, get_backbone
from imagetune.model.manifest import find_manifest, read_manifest, verify_weights
from imagetune.model.weights.h5_reader import open_weights
from imagetune.model.weights.huggingface import (
    CONFIG_FILE,
    SUFFIX,
    WEIGHTS_FILE,
    check_config,
    convert_huggingface_weights,
    describe_positions,
    read_license,
    read_safetensors,
)
from imagetune.model.weights.imagenet import (
    WeightsState,
    WeightsStatus,
    check_weights,
    fetch_weights,
    provide_imagenet_file,
    weights_state,
    weights_status,
)
from imagetune.model.weights.matching import Match, assign, match_in_order, match_layers
from imagetune.model.weights.packages import HED_LICENSE, find_hed_file
from imagetune.model.weights.torch_reader import read_torch_file
from imagetune.recipe.sections.model import ModelConfig

__all__ = [
    "WeightsReport",
    "WeightsState",
    "WeightsStatus",
    "check_weights",
    "fetch_weights",
    "is_run_folder",
    "load_weights",
    "weights_state",
    "weights_status",
]
WHERE = "model.weights"
WORDS = ("imagenet", "random", "hed")
EXPECTED = (
    "imagenet, random, hed, a .weights.h5, .keras, .h5 or .safetensors file, a folder with model.safetensors, or the "
    "folder of a run"
)


@dataclass(frozen=True, slots=True)
class WeightsReport:
    """The source of the backbone's weights, and which layers were matched.

    Attributes:
        source: ``random``, or the path of the file.
        sha256: SHA-256 of that file; None for random weights.
        matched: Number of the backbone's layers that got weights: all of them, or 0 for random weights.
        unmatched: Layers of the file that the backbone doesn't have, such as a classifier.
        note: A sentence for the user.
        license: Licence of the weights, as an SPDX identifier; None where it is unknown, or for random weights.
    """

    source: str
    sha256: str | None
    matched: int
    unmatched: tuple[str, ...]
    note: str
    license: str | None = None


def load_weights(model: keras.Model, config: ModelConfig) -> WeightsReport:
    """Load the weights that ``config`` names into the backbone of a model; the head keeps its own.

    Nothing is assigned unless every layer of the backbone has weights in the file.

    Args:
        model: A model made by ``build_model`` from the same ``config``.
        config: ``weights`` is ``imagenet``, ``random``, ``hed``, a file, a folder with ``model.safetensors``, or the
            folder of an earlier run.

    Raises:
        RecipeError: ``hed`` for another backbone than VGG16, safetensors for another than a vision transformer, or an
            unknown word.
        WeightsError: The weights can't be had, or are those of another backbone.
        ModelFileError: A weight file or run folder is corrupted or hostile.
    """
    backbone = get_backbone(config.backbone)
    network = model.get_layer(backbone.name)
    match config.weights:
        case "random":
            return WeightsReport("random", None, 0, (), f"{backbone.name} starts from random weights")
        case "imagenet":
            return replace(_load_imagenet(network, backbone), license=backbone.weights_license)
        case "hed":
            if backbone.name != "vgg16":
                raise RecipeError(f"`hed` is for vgg16, not {backbone.name}", where=WHERE)
            return replace(_load_file(network, find_hed_file()), license=HED_LICENSE)
    return _load_path(network, backbone, config.weights)


def is_run_folder(path: Path) -> bool:
    """Return whether a folder named by ``model.weights`` is that of a run; else it is one of Hugging Face's."""
    return path.is_dir() and not (path / WEIGHTS_FILE).is_file()


def _load_imagenet(network: keras.Model, backbone: Backbone) -> WeightsReport:
    path = provide_imagenet_file(backbone)
    if isinstance(backbone.architecture, LiteArchitecture):
        arrays = convert_torch_weights(backbone.architecture, read_torch_file(path))
        return _assign_arrays(network, arrays, path, unused=("_fc",), note="; not used: the classifier")
    return _load_file(network, path, in_order=bool(backbone.constructor))


def _load_path(network: keras.Model, backbone: Backbone, value: str) -> WeightsReport:
    path = Path(value).expanduser()
    if is_run_folder(path):
        return _load_run(network, backbone, path)
    if path.is_dir():
        return _load_safetensors(network, backbone, path / WEIGHTS_FILE)
    if path.is_file():
        return _load_safetensors(network, backbone, path) if path.suffix == SUFFIX else _load_file(network, path)
    expected = f"expected {EXPECTED}"
    if not path.suffix and "/" not in value:
        hint = suggest_name(value, WORDS) or expected
        raise RecipeError(f"no weights called {value!r}, and no such file", where=WHERE, hint=hint)
    raise WeightsError("no such file or folder", where=str(path), hint=f"for {WHERE}, {expected}")


def _load_run(network: keras.Model, backbone: Backbone, folder: Path) -> WeightsReport:
    """Load the verified weights of an earlier run, whose licence they keep.

    Raises:
        WeightsError: The run has another backbone.
        ModelFileError: There is no model in the folder, or it is corrupted.
    """
    place = find_manifest(folder)
    manifest = read_manifest(place)
    if manifest.config.backbone != backbone.name:
        what = f"that run's backbone is {manifest.config.backbone}, this one's is {backbone.name}"
        raise WeightsError(what, where=str(folder), hint="set model.backbone to the same, or give other weights")
    return replace(_load_file(network, verify_weights(place, manifest)), license=manifest.weights_license)


def _load_file(network: keras.Model, path: Path, *, in_order: bool = False) -> WeightsReport:
    with open_weights(path) as stored:
        # The layers of Keras's published files have names of older versions, so Keras itself reads them in order.
        try:
            match = (match_in_order(network, stored) if in_order else None) or match_layers(network, stored)
        except WeightsError as error:
            raise WeightsError(error.what, where=str(path), hint=error.hint) from error
        assign(match)
    return _report(path, match)


def _report(path: Path, match: Match) -> WeightsReport:
    unused = f"; not used: {', '.join(match.left[:8])}{' ...' if len(match.left) > 8 else ''}" if match.left else ""
    note = f"all {len(match.found)} layers with weights found in {path.name}{unused}"
    return WeightsReport(str(path), compute_file_sha256(path), len(match.found), match.left, note)


def _load_safetensors(network: keras.Model, backbone: Backbone, path: Path) -> WeightsReport:
    architecture = backbone.architecture
    if not isinstance(architecture, TransformerArchitecture):
        what = f"safetensors files are read for vision transformers, and {backbone.name} is none"
        raise RecipeError(what, where=WHERE, hint="set model.backbone to one, or give another file")
    if (config := path.with_name(CONFIG_FILE)).is_file():
        check_config(architecture, config)
    tensors = read_safetensors(path)
    try:
        arrays, unused = convert_huggingface_weights(architecture, tensors)
    except WeightsError as error:
        raise WeightsError(error.what, where=str(path), hint=error.hint) from error
    names = f"; not used: {', '.join(unused)}" if unused else ""
    note = describe_positions(architecture, tensors) + names
    report = _assign_arrays(network, arrays, path, unused=unused, note=note)
    return replace(report, license=read_license(path.parent))


def _assign_arrays(
    network: keras.Model, arrays: Mapping[str, list[np.ndarray]], path: Path, *, unused: tuple[str, ...], note: str
) -> WeightsReport:
    """Assign the arrays of each layer, by its name, and report it; ``note`` ends the sentence for the user."""
    for name, values in arrays.items():
        # All are checked before the first is assigned, so that a wrong file leaves the backbone as it was.
        _check_shapes(network.get_layer(name), values, path)
    for name, values in arrays.items():
        network.get_layer(name).set_weights(values)
    note = f"all {len(arrays)} layers with weights found in {path.name}{note}"
    return WeightsReport(str(path), compute_file_sha256(path), len(arrays), unused, note)


def _check_shapes(layer: keras.layers.Layer, values: list[np.ndarray], path: Path) -> None:
    needed, present = [tuple(weight.shape) for weight in layer.weights], [value.shape for value in values]
    if needed != present:
        raise WeightsError(f"{layer.name}: {present} in the file, {needed} needed", where=str(path))
