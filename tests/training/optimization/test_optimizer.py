import keras
import numpy as np
import pytest

from imagetune.model.backbones.architectures import TransformerArchitecture
from imagetune.model.backbones.vision_transformer import build_vision_transformer
from imagetune.recipe.sections.learning import AverageConfig
from imagetune.recipe.sections.train import OptimizerConfig, StageConfig
from imagetune.training.optimization.optimizer import (
    Group,
    Slots,
    build_optimizer,
    find_trainable_variables,
    list_inner_optimizers,
    read_slots,
    scale_learning_rate,
)
from imagetune.training.setup.stages import decay_learning_rates

NAMES = ("adamw", "adam", "sgd", "rmsprop", "lion")


def two_layers():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, name="low"), keras.layers.Dense(2, name="high")])
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    return model


def groups_of(model, low, high):
    """Return two groups of two layers, with a learning rate each."""
    places = find_trainable_variables(model)
    return [
        Group(rate, {place: one for place, one in places.items() if f"{layer}/" in one.path})
        for layer, rate in (("low", low), ("high", high))
    ]


def values(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def moved_without_gradients(optimizer, model):
    variables = model.trainable_variables
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables], variables)
    names = {id(variable): "/".join(variable.path.split("/")[-2:]) for variable in variables}
    return {names[id(variable)]: float(1 - keras.ops.convert_to_numpy(variable).mean()) for variable in variables}


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_moves_kernels_and_never_biases(name):
    model = two_layers()
    config = OptimizerConfig(name=name, weight_decay=0.1)
    moved = moved_without_gradients(build_optimizer(config, [Group(0.5, find_trainable_variables(model))]), model)
    assert moved["low/kernel"] == pytest.approx(0.05, rel=1e-3)
    assert moved["low/bias"] == 0.0


def test_weight_decay_leaves_the_tokens_and_positions_of_a_vision_transformer_alone():
    architecture = TransformerArchitecture(width=12, depth=1, heads=3, patch=4, grid=3, epsilon=1e-6)
    model = build_vision_transformer(architecture, (12, 12, 3), "tiny")
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    config = OptimizerConfig(weight_decay=0.1)
    moved = moved_without_gradients(build_optimizer(config, [Group(0.5, find_trainable_variables(model))]), model)
    assert moved["class_token/kernel"] == moved["position_embedding/kernel"] == 0.0
    assert moved["patch_embedding/kernel"] == pytest.approx(0.05, rel=1e-3)


def test_decoupled_decay_follows_the_learning_rate_of_each_group():
    model = two_layers()
    optimizer = build_optimizer(OptimizerConfig(weight_decay=0.1), groups_of(model, 0.05, 0.5))
    moved = moved_without_gradients(optimizer, model)
    assert moved["low/kernel"] == pytest.approx(0.005, rel=1e-3)
    assert moved["high/kernel"] == pytest.approx(0.05, rel=1e-3)
    assert moved["low/bias"] == moved["high/bias"] == 0.0


def test_a_decayed_group_moves_less():
    model = two_layers()
    low, high = (model.get_layer(name).trainable_variables for name in ("low", "high"))
    config = OptimizerConfig(name="sgd", weight_decay=0.0, momentum=0.0)
    optimizer = build_optimizer(config, groups_of(model, 0.1, 1.0))
    variables = model.trainable_variables
    optimizer.apply([keras.ops.ones(variable.shape) for variable in variables], variables)
    assert float(1 - keras.ops.convert_to_numpy(low[0]).mean()) == pytest.approx(0.1)
    assert float(1 - keras.ops.convert_to_numpy(high[0]).mean()) == pytest.approx(1.0)


def test_learning_rates_fall_from_the_head_to_the_input():
    stage = StageConfig(name="top", epochs=1, learning_rate=1.0, layer_decay=0.5)
    assert decay_learning_rates(["block4", "block5", "head"], stage) == {
        "block4": 0.25,
        "block5": 0.5,
        "head": 1.0,
    }


def test_scaling_reaches_every_group():
    model = two_layers()
    optimizer = build_optimizer(OptimizerConfig(), groups_of(model, 0.1, 0.2))
    scale_learning_rate(optimizer, 0.5)
    rates = sorted(float(keras.ops.convert_to_numpy(one.learning_rate)) for one in optimizer.optimizers)
    assert rates == pytest.approx([0.05, 0.1])


def apply_steps(optimizer, model, gradients):
    for size in gradients:
        variables = model.trainable_variables
        optimizer.apply([keras.ops.full(variable.shape, size) for variable in variables], variables)


@pytest.mark.parametrize("name", NAMES)
def test_with_its_slots_a_second_stage_goes_on_as_if_it_were_the_first(name):
    config = OptimizerConfig(name=name, weight_decay=0.01)
    gradients = [1.0, -0.5, 0.3, 2.0, -1.0, 0.1]
    whole = two_layers()
    apply_steps(build_optimizer(config, [Group(0.01, find_trainable_variables(whole))]), whole, gradients)
    parted = two_layers()
    first = build_optimizer(config, [Group(0.01, find_trainable_variables(parted))])
    apply_steps(first, parted, gradients[:3])
    slots = read_slots(first, find_trainable_variables(parted))
    second = build_optimizer(config, [Group(0.01, find_trainable_variables(parted), steps=3)], slots=slots)
    apply_steps(second, parted, gradients[3:])
    for one, other in zip(values(whole.trainable_variables), values(parted.trainable_variables), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_layers_that_begin_now_start_without_an_age():
    model = two_layers()
    model.get_layer("low").trainable = False
    config = OptimizerConfig(name="adamw", weight_decay=0.0)
    head = build_optimizer(config, [Group(0.1, find_trainable_variables(model))])
    apply_steps(head, model, [1.0, 1.0, 1.0])
    slots = read_slots(head, find_trainable_variables(model))
    assert set(slots.steps.values()) == {3}
    model.get_layer("low").trainable = True
    before = values(model.get_layer("low").trainable_variables)
    places = find_trainable_variables(model)
    old = Group(0.1, {place: one for place, one in places.items() if place in slots.steps}, steps=3)
    new = Group(0.1, {place: one for place, one in places.items() if place not in slots.steps})
    apply_steps(build_optimizer(config, [new, old], slots=slots), model, [1.0])
    # Adam's first step is the learning rate itself, whatever the gradient.
    for start, now in zip(before, values(model.get_layer("low").trainable_variables), strict=True):
        np.testing.assert_allclose(start - now, 0.1, rtol=1e-4)


@pytest.mark.parametrize("several", [False, True])
def test_the_norm_of_all_gradients_together_is_bounded(several):
    model = two_layers()
    config = OptimizerConfig(name="sgd", weight_decay=0.0, momentum=0.0, clip_norm=1.0)
    groups = groups_of(model, 1.0, 1.0) if several else [Group(1.0, find_trainable_variables(model))]
    apply_steps(build_optimizer(config, groups), model, [5.0])
    moved = np.concatenate([(1 - value).ravel() for value in values(model.trainable_variables)])
    assert np.linalg.norm(moved) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_allclose(moved, moved[0], rtol=1e-5)


@pytest.mark.parametrize("age", [0, 5])
def test_averaged_weights_equal_a_hand_computation(age):
    model = two_layers()
    config = OptimizerConfig(name="sgd", weight_decay=0.0, momentum=0.0)
    average = AverageConfig(name="ema", decay=0.9)
    groups = [Group(group.learning_rate, group.variables, steps=age) for group in groups_of(model, 0.1, 0.2)]
    optimizer = build_optimizer(config, groups, average=average, slots=Slots())
    expected, weight = None, 1.0
    for gradient in (1.0, -2.0, 0.5):
        apply_steps(optimizer, model, [gradient])
        weight -= 0.1 * gradient
        # A fresh optimizer starts from the first step's weights, one that goes on from the stage's first ones.
        previous = (1.0 if age else weight) if expected is None else expected
        expected = 0.9 * previous + 0.1 * weight
    optimizer.finalize_variable_values(model.trainable_variables)
    low = values(model.get_layer("low").trainable_variables)[0]
    np.testing.assert_allclose(low, expected, rtol=1e-5)


def test_accumulated_passes_equal_one_step_on_their_mean():
    whole, parted = two_layers(), two_layers()
    config = OptimizerConfig(name="adamw", weight_decay=0.01)
    apply_steps(build_optimizer(config, [Group(0.1, find_trainable_variables(whole))]), whole, [2.0])
    optimizer = build_optimizer(config, groups_of(parted, 0.1, 0.1), accumulation=4)
    apply_steps(optimizer, parted, [1.0, 3.0, 0.5, 3.5])
    for one, other in zip(values(whole.trainable_variables), values(parted.trainable_variables), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert {int(keras.ops.convert_to_numpy(one.iterations)) for one in list_inner_optimizers(optimizer)} == {1}
