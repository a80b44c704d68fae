import keras
import numpy as np
import onnxruntime
import pytest

from imagetune.export.onnx import write_onnx

NO_IMAGES = np.zeros((0, 8, 8, 3), np.uint8)


@pytest.fixture
def model():
    """A model that begins as those of VGG and ResNet do, by the means of ImageNet, and goes on as ConvNeXt and ViT."""
    layers, images = keras.layers, keras.Input((8, 8, 3), name="image")
    x = layers.Normalization(mean=[103.9, 116.8, 123.7], variance=[900.0, 900.0, 900.0])(images)
    x = layers.Conv2D(4, 3, padding="same", groups=4)(layers.Conv2D(4, 3, strides=2)(x))
    x = layers.Dense(6, activation="gelu")(layers.Activation("gelu")(x))
    outputs = layers.Dense(3, activation="softmax")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, {"probabilities": outputs, "evidence": x})


@pytest.mark.parametrize("quantization", ["none", pytest.param("fp16", marks=pytest.mark.slow)])
def test_what_the_converter_lacks_is_computed_by_what_it_has(model, tmp_path, quantization):
    """Normalisation as a constant and no input, GELU without erfc, a group a channel without XLA's call."""
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3)).astype(np.float32)
    expected = model.predict(images, verbose=0)
    write_onnx(model, tmp_path / "model.onnx", quantization, NO_IMAGES)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    assert [given.name for given in session.get_inputs()] == ["image"]
    assert [given.name for given in session.get_outputs()] == ["evidence", "probabilities"]
    outputs = session.run(["probabilities"], {"image": images})[0]
    np.testing.assert_allclose(outputs, expected["probabilities"], atol=2e-3)
    # The layers themselves are as they were.
    assert "convolution_op" not in vars(model.layers[3])
    assert all(layer.activation is keras.activations.gelu for layer in model.layers[4:6])
