"""The networks of ``keras.applications``: preprocessing, blocks, sizes, and the files of their ImageNet weights."""

from __future__ import annotations

from dataclasses import dataclass

from imagetune.model.backbones import blocks
from imagetune.model.backbones.architectures import BuiltIn, Preprocessing
from imagetune.model.backbones.blocks import BlockScheme


@dataclass(frozen=True, slots=True)
class KerasArchitecture:
    """What the networks of one architecture share; see ``imagetune.model.backbones.table.Backbone``."""

    scheme: BlockScheme
    preprocessing: Preprocessing
    weights_license: str
    built_in: BuiltIn = "none"
    min_size: int = 32


@dataclass(frozen=True, slots=True)
class KerasApplication:
    """A network of ``keras.applications``.

    Attributes:
        name: Name in recipes.
        constructor: Name in ``keras.applications``.
        architecture: What it shares with others.
        default_size: Height and width in pixels that its ImageNet weights were trained at.
        parameters: Number of parameters without the classifier.
        top1: Published top-1 accuracy on ImageNet in percent.
        address: Path of the weights at Keras's host, and after ``>`` the name in the cache if it differs.
        file_hash: MD5 or SHA-256 of that file; None where Keras states none.
    """

    name: str
    constructor: str
    architecture: KerasArchitecture
    default_size: int
    parameters: int
    top1: float | None
    address: str
    file_hash: str | None


# The smallest sizes are those that Keras's own constructors accept. The licences are those that Keras's documentation
# states for its ports (docs/templates/applications.md of keras-team/keras 2.3); for MobileNetV3, EfficientNet and
# ConvNeXt, which came later, those of the repositories that the weights were ported from.
_VGG = KerasArchitecture(blocks.VGG, "caffe", "CC-BY-4.0")
_RESNET = KerasArchitecture(blocks.RESNET, "caffe", "MIT")
_RESNET_V2 = KerasArchitecture(blocks.RESNET, "tf", "BSD-3-Clause")
_INCEPTION_V3 = KerasArchitecture(blocks.INCEPTION_V3, "tf", "Apache-2.0", min_size=75)
_INCEPTION_RESNET_V2 = KerasArchitecture(blocks.INCEPTION_RESNET_V2, "tf", "Apache-2.0", min_size=75)
_XCEPTION = KerasArchitecture(blocks.XCEPTION, "tf", "MIT", min_size=71)
_MOBILENET = KerasArchitecture(blocks.MOBILENET, "tf", "Apache-2.0")
_MOBILENET_V2 = KerasArchitecture(blocks.MOBILENET_V2, "tf", "Apache-2.0")
_MOBILENET_V3 = KerasArchitecture(blocks.MOBILENET_V3, "tf", "Apache-2.0", "optional")
_DENSENET = KerasArchitecture(blocks.DENSENET, "torch", "BSD-3-Clause")
_NASNET = KerasArchitecture(blocks.NASNET, "tf", "Apache-2.0")
_EFFICIENTNET = KerasArchitecture(blocks.EFFICIENTNET, "torch", "Apache-2.0", "always")
_EFFICIENTNET_V2_B = KerasArchitecture(blocks.EFFICIENTNET, "torch", "Apache-2.0", "optional")
_EFFICIENTNET_V2_SML = KerasArchitecture(blocks.EFFICIENTNET, "v2", "Apache-2.0", "optional")
_CONVNEXT = KerasArchitecture(blocks.CONVNEXT, "torch", "MIT", "optional")

_KERAS = "tensorflow/keras-applications/"
_TF = "_weights_tf_dim_ordering_tf_kernels_notop.h5"

# fmt: off
KERAS_APPLICATIONS: tuple[KerasApplication, ...] = (
    KerasApplication("vgg16", "VGG16", _VGG, 224, 14_714_688, 71.3,
         _KERAS + "vgg16/vgg16" + _TF,
         "6d6bbae143d832006294945121d1f1fc"),
    KerasApplication("vgg19", "VGG19", _VGG, 224, 20_024_384, 71.3,
         _KERAS + "vgg19/vgg19" + _TF,
         "253f8cb515780f3b799900260a226db6"),
    KerasApplication("resnet50", "ResNet50", _RESNET, 224, 23_587_712, 74.9,
         _KERAS + "resnet/resnet50" + _TF,
         "4d473c1dd8becc155b73f8504c6f6626"),
    KerasApplication("resnet101", "ResNet101", _RESNET, 224, 42_658_176, 76.4,
         _KERAS + "resnet/resnet101" + _TF,
         "88cf7a10940856eca736dc7b7e228a21"),
    KerasApplication("resnet152", "ResNet152", _RESNET, 224, 58_370_944, 76.6,
         _KERAS + "resnet/resnet152" + _TF,
         "ee4c566cf9a93f14d82f913c2dc6dd0c"),
    KerasApplication("resnet50_v2", "ResNet50V2", _RESNET_V2, 224, 23_564_800, 76.0,
         _KERAS + "resnet/resnet50v2" + _TF,
         "fac2f116257151a9d068a22e544a4917"),
    KerasApplication("resnet101_v2", "ResNet101V2", _RESNET_V2, 224, 42_626_560, 77.2,
         _KERAS + "resnet/resnet101v2" + _TF,
         "c0ed64b8031c3730f411d2eb4eea35b5"),
    KerasApplication("resnet152_v2", "ResNet152V2", _RESNET_V2, 224, 58_331_648, 78.0,
         _KERAS + "resnet/resnet152v2" + _TF,
         "ed17cf2e0169df9d443503ef94b23b33"),
    KerasApplication("inception_v3", "InceptionV3", _INCEPTION_V3, 299, 21_802_784, 77.9,
         _KERAS + "inception_v3/inception_v3" + _TF,
         "bcbd6486424b2319ff4ef7d526e38f63"),
    KerasApplication("inception_resnet_v2", "InceptionResNetV2", _INCEPTION_RESNET_V2, 299, 54_336_736, 80.3,
         _KERAS + "inception_resnet_v2/inception_resnet_v2" + _TF,
         "d19885ff4a710c122648d3b5c3b684e4"),
    KerasApplication("xception", "Xception", _XCEPTION, 299, 20_861_480, 79.0,
         _KERAS + "xception/xception" + _TF,
         "b0042744bf5b25fce3cb969f33bebb97"),
    KerasApplication("mobilenet", "MobileNet", _MOBILENET, 224, 3_228_864, 70.4,
         _KERAS + "mobilenet/mobilenet_1_0_224_tf_no_top.h5",
         None),
    KerasApplication("mobilenet_v2", "MobileNetV2", _MOBILENET_V2, 224, 2_257_984, 71.3,
         _KERAS + "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
         None),
    KerasApplication("mobilenet_v3_small", "MobileNetV3Small", _MOBILENET_V3, 224, 939_120, None,
         _KERAS + "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
         "d3e8ec802a04aa4fc771ee12a9a9b836"),
    KerasApplication("mobilenet_v3_large", "MobileNetV3Large", _MOBILENET_V3, 224, 2_996_352, None,
         _KERAS + "mobilenet_v3/weights_mobilenet_v3_large_224_1.0_float_no_top_v2.h5",
         "07fb09a5933dd0c8eaafa16978110389"),
    KerasApplication("densenet121", "DenseNet121", _DENSENET, 224, 7_037_504, 75.0,
         _KERAS + "densenet/densenet121" + _TF,
         "30ee3e1110167f948a6b9946edeeb738"),
    KerasApplication("densenet169", "DenseNet169", _DENSENET, 224, 12_642_880, 76.2,
         _KERAS + "densenet/densenet169" + _TF,
         "b8c4d4c20dd625c148057b9ff1c1176b"),
    KerasApplication("densenet201", "DenseNet201", _DENSENET, 224, 18_321_984, 77.3,
         _KERAS + "densenet/densenet201" + _TF,
         "c13680b51ded0fb44dff2d8f86ac8bb1"),
    KerasApplication("nasnet_mobile", "NASNetMobile", _NASNET, 224, 4_269_716, 74.4,
         _KERAS + "nasnet/NASNet-mobile-no-top.h5>nasnet_mobile_no_top.h5",
         "1ed92395b5b598bdda52abe5c0dbfd63"),
    KerasApplication("nasnet_large", "NASNetLarge", _NASNET, 331, 84_916_818, 82.5,
         _KERAS + "nasnet/NASNet-large-no-top.h5>nasnet_large_no_top.h5",
         "d81d89dc07e6e56530c4e77faddd61b5"),
    KerasApplication("efficientnet_b0", "EfficientNetB0", _EFFICIENTNET, 224, 4_049_564, 77.1,
         "keras-applications/efficientnetb0_notop.h5",
         "50bc09e76180e00e4465e1a485ddc09d"),
    KerasApplication("efficientnet_b1", "EfficientNetB1", _EFFICIENTNET, 240, 6_575_232, 79.1,
         "keras-applications/efficientnetb1_notop.h5",
         "74c4e6b3e1f6a1eea24c589628592432"),
    KerasApplication("efficientnet_b2", "EfficientNetB2", _EFFICIENTNET, 260, 7_768_562, 80.1,
         "keras-applications/efficientnetb2_notop.h5",
         "111f8e2ac8aa800a7a99e3239f7bfb39"),
    KerasApplication("efficientnet_b3", "EfficientNetB3", _EFFICIENTNET, 300, 10_783_528, 81.6,
         "keras-applications/efficientnetb3_notop.h5",
         "af6d107764bb5b1abb91932881670226"),
    KerasApplication("efficientnet_b4", "EfficientNetB4", _EFFICIENTNET, 380, 17_673_816, 82.9,
         "keras-applications/efficientnetb4_notop.h5",
         "ebc24e6d6c33eaebbd558eafbeedf1ba"),
    KerasApplication("efficientnet_b5", "EfficientNetB5", _EFFICIENTNET, 456, 28_513_520, 83.6,
         "keras-applications/efficientnetb5_notop.h5",
         "38879255a25d3c92d5e44e04ae6cec6f"),
    KerasApplication("efficientnet_b6", "EfficientNetB6", _EFFICIENTNET, 528, 40_960_136, 84.0,
         "keras-applications/efficientnetb6_notop.h5",
         "9ecce42647a20130c1f39a5d4cb75743"),
    KerasApplication("efficientnet_b7", "EfficientNetB7", _EFFICIENTNET, 600, 64_097_680, 84.3,
         "keras-applications/efficientnetb7_notop.h5",
         "cbcfe4450ddf6f3ad90b1b398090fe4a"),
    KerasApplication("efficientnet_v2_b0", "EfficientNetV2B0", _EFFICIENTNET_V2_B, 224, 5_919_312, 78.7,
         _KERAS + "efficientnet_v2/efficientnetv2-b0_notop.h5",
         "893217f2bb855e2983157299931e43ff"),
    KerasApplication("efficientnet_v2_b1", "EfficientNetV2B1", _EFFICIENTNET_V2_B, 240, 6_931_124, 79.8,
         _KERAS + "efficientnet_v2/efficientnetv2-b1_notop.h5",
         "0e80663031ca32d657f9caa404b6ec37"),
    KerasApplication("efficientnet_v2_b2", "EfficientNetV2B2", _EFFICIENTNET_V2_B, 260, 8_769_374, 80.5,
         _KERAS + "efficientnet_v2/efficientnetv2-b2_notop.h5",
         "1dfe2e7a5d45b6632553a8961ea609eb"),
    KerasApplication("efficientnet_v2_b3", "EfficientNetV2B3", _EFFICIENTNET_V2_B, 300, 12_930_622, 82.0,
         _KERAS + "efficientnet_v2/efficientnetv2-b3_notop.h5",
         "f6abf7b5849ac99a89b50dd3fd532856"),
    KerasApplication("efficientnet_v2_s", "EfficientNetV2S", _EFFICIENTNET_V2_SML, 384, 20_331_360, 83.9,
         _KERAS + "efficientnet_v2/efficientnetv2-s_notop.h5",
         "af0682fb74e8c54910f2d4393339c070"),
    KerasApplication("efficientnet_v2_m", "EfficientNetV2M", _EFFICIENTNET_V2_SML, 480, 53_150_388, 85.3,
         _KERAS + "efficientnet_v2/efficientnetv2-m_notop.h5",
         "1b8dc055df72dde80d614482840fe342"),
    KerasApplication("efficientnet_v2_l", "EfficientNetV2L", _EFFICIENTNET_V2_SML, 480, 117_746_848, 85.7,
         _KERAS + "efficientnet_v2/efficientnetv2-l_notop.h5",
         "b0b66b5c863aef5b46e8608fe1711615"),
    KerasApplication("convnext_tiny", "ConvNeXtTiny", _CONVNEXT, 224, 27_820_128, 81.3,
         _KERAS + "convnext/convnext_tiny_notop.h5",
         "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1"),
    KerasApplication("convnext_small", "ConvNeXtSmall", _CONVNEXT, 224, 49_454_688, 82.3,
         _KERAS + "convnext/convnext_small_notop.h5",
         "6fc8009faa2f00c1c1dfce59feea9b0745eb260a7dd11bee65c8e20843da6eab"),
    KerasApplication("convnext_base", "ConvNeXtBase", _CONVNEXT, 224, 87_566_464, 85.3,
         _KERAS + "convnext/convnext_base_notop.h5",
         "40a20c5548a5e9202f69735ecc06c990e6b7c9d2de39f0361e27baeb24cb7c45"),
    KerasApplication("convnext_large", "ConvNeXtLarge", _CONVNEXT, 224, 196_230_336, 86.3,
         _KERAS + "convnext/convnext_large_notop.h5",
         "96f02b6f0753d4f543261bc9d09bed650f24dd6bc02ddde3066135b63d23a1cd"),
    KerasApplication("convnext_xlarge", "ConvNeXtXLarge", _CONVNEXT, 224, 348_147_968, 86.7,
         _KERAS + "convnext/convnext_xlarge_notop.h5",
         "de3f8a54174130e0cecdc71583354753d557fcf1f4487331558e2a16ba0cfe05"),
)
# fmt: on
