from __future__ import annotations

import cv2
import numpy as np
import pytest
from imagenet_classifier import load_classifier
from sklearn.datasets import load_sample_images

from imagetune.errors import WeightsError
from imagetune.model.backbones.efficientnet_lite0 import convert_torch_weights
from imagetune.model.build import build_model
from imagetune.model.load_weights import load_weights
from imagetune.model.weights.packages import lite0_file
from imagetune.model.weights.torch_reader import read_torch_file
from imagetune.recipe.sections.model import ModelConfig

PALACE, BELL_COTE, MONASTERY, DAISY = 698, 442, 663, 985


def centre_square(image, size):
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)


def test_two_photographs_are_recognised():
    model = build_model(ModelConfig(), num_classes=1000, image_size=(224, 224))
    load_weights(model, ModelConfig())
    load_classifier(model)
    photographs = np.stack([centre_square(image, 224) for image in load_sample_images().images])
    china, flower = model.predict(photographs, verbose=0)
    assert set(np.argsort(-china)[:3]) == {PALACE, BELL_COTE, MONASTERY}
    assert np.argmax(flower) == DAISY


def test_every_tensor_but_the_classifier_and_counters_is_used():
    tensors = read_torch_file(lite0_file())
    used = sum(array.size for arrays in convert_torch_weights(tensors).values() for array in arrays)
    kept = sum(
        array.size
        for name, array in tensors.items()
        if not name.startswith("_fc") and not name.endswith("num_batches_tracked")
    )
    assert used == kept == 3_413_024


def test_a_missing_tensor_is_named():
    tensors = read_torch_file(lite0_file())
    del tensors["_blocks.3._bn1.weight"]
    with pytest.raises(WeightsError, match=r"_blocks\.3\._bn1\.weight"):
        convert_torch_weights(tensors)
