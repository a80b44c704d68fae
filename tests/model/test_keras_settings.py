"""Keras's global settings, whatever an old keras.json or a program has made of them."""

import keras
import numpy as np
import pytest

from imagetune.model.build import build_model
from imagetune.model.keras_settings import keras_left_alone, set_keras_settings
from imagetune.recipe.sections.model import ModelConfig


@pytest.fixture
def theano_settings():
    with keras_left_alone():
        keras.config.set_image_data_format("channels_first")
        keras.config.set_floatx("float16")
        keras.config.set_max_epochs(1)
        yield


def test_a_model_is_built_with_channels_last_and_a_programs_settings_stay(theano_settings):
    model = build_model(ModelConfig(backbone="efficientnet_lite0"), num_classes=2, image_size=(32, 32))
    assert model(np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 2)
    assert model.get_layer("pooling").data_format == "channels_last"
    assert keras.config.image_data_format() == "channels_first"


def test_a_training_has_float32_losses_and_all_its_epochs(theano_settings):
    set_keras_settings("float32")
    assert (keras.config.floatx(), keras.config.max_epochs()) == ("float32", None)
    assert keras.config.image_data_format() == "channels_last"
