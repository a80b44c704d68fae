from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np

from imagetune.model.inference import measure_largest_output, predict_probabilities


@dataclass(frozen=True)
class TrainingImages:
    images: np.ndarray


def test_a_smaller_last_batch_gives_the_same_probabilities_and_no_new_trace(build, random_images):
    model = build("vgg16")
    images = random_images(7)
    expected = model.predict(images, verbose=0)
    batches = [TrainingImages(images[:3]), TrainingImages(images[3:6]), TrainingImages(images[6:])]
    found = predict_probabilities(model, batches)
    assert (found.shape, found.dtype) == ((7, 3), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_batch_reaches_the_model_in_one_size(random_images):
    sizes = []

    class Model:
        output_shape = (None, 2)

        def predict_on_batch(self, images):
            sizes.append(len(images))
            return np.zeros((len(images), 2))

    images = random_images(5)
    found = predict_probabilities(Model(), [TrainingImages(images[:4]), TrainingImages(images[4:])])
    assert sizes == [4, 4]
    assert found.shape == (5, 2)


def test_no_images_give_no_rows(build):
    assert predict_probabilities(build("vgg16"), []).shape == (0, 3)


def mean_of_columns():
    """A model whose two predictions are the brightness of the left and of the right half: a flip swaps them."""
    inputs = keras.Input((4, 4, 3))
    halves = keras.layers.AveragePooling2D((4, 2))(keras.layers.Rescaling(1 / 255)(inputs))
    colours = keras.layers.Reshape((2, 3))(halves)
    return keras.Model(inputs, keras.layers.GlobalAveragePooling1D(data_format="channels_first")(colours))


def test_the_prediction_is_the_mean_over_the_image_and_its_transforms():
    images = np.zeros((1, 4, 4, 3), np.uint8)
    images[0, :2, :2] = 240  # a bright top left corner
    model = mean_of_columns()
    left, right = 240 / 255 / 2, 0.0
    plain = predict_probabilities(model, [TrainingImages(images)])
    np.testing.assert_allclose(plain, [[left, right]], atol=1e-6)
    # A turn to the left puts the corner at the bottom left; upside down it is at the bottom right.
    tta = ("horizontal_flip", "rotate_90", "rotate_180")
    found = predict_probabilities(model, [TrainingImages(images)], tta=tta)
    np.testing.assert_allclose(found, [[left / 2, left / 2]], atol=1e-6)
    assert found.dtype == np.float32
    thirds = predict_probabilities(
        model, [TrainingImages(images)], tta=("vertical_flip", "rotate_270", "vertical_flip")
    )
    np.testing.assert_allclose(thirds, [[left * 3 / 4, left / 4]], atol=1e-6)


def test_transforms_reach_a_smaller_last_batch_too(random_images):
    images = random_images(5, 4)
    model = mean_of_columns()
    found = predict_probabilities(
        model, [TrainingImages(images[:4]), TrainingImages(images[4:])], tta=("horizontal_flip",)
    )
    np.testing.assert_allclose(found[:, 0], found[:, 1], atol=1e-6)
    np.testing.assert_allclose(found[:, 0], images.mean((1, 2, 3)) / 255, atol=1e-6)


def test_the_largest_output_is_found_though_a_layer_scale_leaves_the_number_of_tokens_open():
    """As DINOv2's does, whose models could otherwise not be loaded."""
    tokens = keras.Input((17, 8))
    scaled = keras.layers.EinsumDense("abc,c->abc", (None, 8))(tokens)
    model = keras.Model(tokens, keras.layers.Reshape((17, 2, 4))(scaled))
    assert scaled.shape == (None, None, 8)
    assert measure_largest_output(model) == 4 * 17 * 8
