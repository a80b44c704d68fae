import keras
import numpy as np
import pytest

from imagetune.recipe.train import OptimizerConfig, StageConfig
from imagetune.training.optimizer import build_optimizer, scale_rate
from imagetune.training.stages import block_rates

NAMES = ("adamw", "adam", "sgd", "rmsprop", "lion")


def two_layers():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="low"), keras.layers.Dense(2, name="high")])
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    return model


def moved_without_gradients(optimizer, model):
    variables = model.trainable_variables
    optimizer.apply([keras.ops.zeros_like(variable) for variable in variables], variables)
    names = {id(variable): "/".join(variable.path.split("/")[-2:]) for variable in variables}
    return {names[id(variable)]: float(1 - keras.ops.convert_to_numpy(variable).mean()) for variable in variables}


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_moves_kernels_and_never_biases(name):
    model = two_layers()
    config = OptimizerConfig(name=name, weight_decay=0.1)
    moved = moved_without_gradients(build_optimizer(config, {"head": 0.5}, {"head": model.trainable_variables}), model)
    assert moved["low/kernel"] == pytest.approx(0.05, rel=1e-3)
    assert moved["low/bias"] == 0.0


def test_decoupled_decay_follows_the_rate_of_each_group():
    model = two_layers()
    low, high = (model.get_layer(name).trainable_variables for name in ("low", "high"))
    optimizer = build_optimizer(
        OptimizerConfig(weight_decay=0.1), {"low": 0.05, "head": 0.5}, {"low": low, "head": high}
    )
    moved = moved_without_gradients(optimizer, model)
    assert moved["low/kernel"] == pytest.approx(0.005, rel=1e-3)
    assert moved["high/kernel"] == pytest.approx(0.05, rel=1e-3)
    assert moved["low/bias"] == moved["high/bias"] == 0.0


def test_a_decayed_group_moves_less():
    model = two_layers()
    low, high = (model.get_layer(name).trainable_variables for name in ("low", "high"))
    config = OptimizerConfig(name="sgd", weight_decay=0.0, momentum=0.0)
    optimizer = build_optimizer(config, {"low": 0.1, "head": 1.0}, {"low": low, "head": high})
    variables = model.trainable_variables
    optimizer.apply([keras.ops.ones_like(variable) for variable in variables], variables)
    assert float(1 - keras.ops.convert_to_numpy(low[0]).mean()) == pytest.approx(0.1)
    assert float(1 - keras.ops.convert_to_numpy(high[0]).mean()) == pytest.approx(1.0)


def test_rates_fall_from_the_head_to_the_input():
    stage = StageConfig(name="top", epochs=1, learning_rate=1.0, layer_decay=0.5)
    assert block_rates(["block4", "block5", "head"], stage) == {"block4": 0.25, "block5": 0.5, "head": 1.0}


def test_scaling_reaches_every_group():
    model = two_layers()
    low, high = (model.get_layer(name).trainable_variables for name in ("low", "high"))
    optimizer = build_optimizer(OptimizerConfig(), {"low": 0.1, "head": 0.2}, {"low": low, "head": high})
    optimizer.build(model.trainable_variables)
    scale_rate(optimizer, 0.5)
    rates = sorted(float(keras.ops.convert_to_numpy(one.learning_rate)) for one in optimizer.optimizers)
    assert rates == pytest.approx([0.05, 0.1])
