import keras
import numpy as np
import pytest

from imagetune.model.backbones.drop_path import set_drop_path
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_backbone


def branches(network):
    return [layer for layer in network.layers if isinstance(layer, keras.layers.Dropout) and layer.noise_shape]


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "efficientnet_v2_b0", pytest.param("convnext_tiny", marks=pytest.mark.slow)]
)
def test_the_drop_rate_rises_linearly_to_the_last_branch(name):
    plain = build_backbone(get_backbone(name), (64, 64))
    network = set_drop_path(plain, 0.4)
    rates = [layer.rate for layer in branches(network)]
    assert rates[-1] == pytest.approx(0.4)
    np.testing.assert_allclose(np.diff(rates), 0.4 / len(rates), rtol=1e-6)
    assert [weight.shape for weight in network.weights] == [weight.shape for weight in plain.weights]


def test_branches_are_dropped_while_training_only():
    network = set_drop_path(build_backbone(get_backbone("efficientnet_lite0"), (32, 32)), 0.9)
    image = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype("float32")
    still = [keras.ops.convert_to_numpy(network(image, training=False)) for _ in range(2)]
    np.testing.assert_array_equal(*still)
