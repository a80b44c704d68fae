from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imagetune.model.inference import predict_probabilities


@dataclass(frozen=True)
class Pictures:
    images: np.ndarray


def test_a_smaller_last_batch_gives_the_same_probabilities_and_no_new_trace(build, random_pictures):
    model = build("vgg16")
    images = random_pictures(7)
    expected = model.predict(images, verbose=0)
    batches = [Pictures(images[:3]), Pictures(images[3:6]), Pictures(images[6:])]
    found = predict_probabilities(model, batches)
    assert (found.shape, found.dtype) == ((7, 3), np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_every_batch_reaches_the_model_in_one_size(random_pictures):
    sizes = []

    class Model:
        output_shape = (None, 2)

        def predict_on_batch(self, images):
            sizes.append(len(images))
            return np.zeros((len(images), 2))

    images = random_pictures(5)
    found = predict_probabilities(Model(), [Pictures(images[:4]), Pictures(images[4:])])
    assert sizes == [4, 4]
    assert found.shape == (5, 2)


def test_no_pictures_give_no_rows(build):
    assert predict_probabilities(build("vgg16"), []).shape == (0, 3)
