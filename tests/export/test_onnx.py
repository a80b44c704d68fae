import keras
import numpy as np
import onnxruntime
import pytest

from imagetune.export.onnx import write_onnx

NO_IMAGES = np.zeros((0, 8, 8, 3), np.uint8)


@pytest.fixture
def model():
    """A model that subtracts the means of ImageNet first, as those of VGG and ResNet do."""
    images = keras.Input((8, 8, 3), name="image")
    shifted = keras.layers.Normalization(mean=[103.9, 116.8, 123.7], variance=[1.0, 1.0, 1.0])(images)
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(shifted))
    return keras.Model(images, keras.layers.Dense(3, activation="softmax")(pooled))


@pytest.mark.parametrize("quantization", ["none", pytest.param("fp16", marks=pytest.mark.slow)])
def test_normalisation_is_a_constant_of_the_graph_and_not_an_input(model, tmp_path, quantization):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    write_onnx(model, tmp_path / "model.onnx", quantization, NO_IMAGES)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [given.name for given in session.get_inputs()] == ["image"]
    np.testing.assert_allclose(session.run(None, {"image": images})[0], model.predict(images, verbose=0), atol=2e-3)
