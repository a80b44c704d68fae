"""The ImageNet classifier of EfficientNet-Lite0, which its file holds beside the backbone."""

from __future__ import annotations

import keras

from imagetune.model.weights.packages import lite0_file
from imagetune.model.weights.torch_reader import read_torch_file


def load_classifier(model: keras.Model) -> None:
    """Give the layer ``logits`` of 1000 classes the kernel (1280, 1000) and bias (1000,) of the file."""
    tensors = read_torch_file(lite0_file())
    model.get_layer("logits").set_weights([tensors["_fc.weight"].T, tensors["_fc.bias"]])
