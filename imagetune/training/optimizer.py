"""Keras optimizers with decay on kernels only and a rate for each block."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras

from imagetune.recipe.train import OptimizerConfig

Rate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


def build_optimizer(
    config: OptimizerConfig, rates: Mapping[str, Rate], variables_of: Mapping[str, list[keras.Variable]]
) -> keras.optimizers.Optimizer:
    """Return one optimizer, or one for each group of layers where rates differ.

    Args:
        config: Algorithm and its settings. ``clip_norm`` holds for each group by itself.
        rates: Learning rate of each group.
        variables_of: Trainable variables of each group, of the same names.
    """
    optimizers = {group: _one_optimizer(config, rate, variables_of[group]) for group, rate in rates.items()}
    if len(optimizers) == 1:
        return next(iter(optimizers.values()))
    group_of = {id(variable): group for group, variables in variables_of.items() for variable in variables}
    return keras.optimizers.MultiOptimizer(lambda variable: optimizers[group_of[id(variable)]])


def scale_rate(optimizer: keras.optimizers.Optimizer, factor: float) -> None:
    """Multiply the constant learning rate of ``optimizer``, and of all inside it, by ``factor``."""
    inner = getattr(optimizer, "optimizers", None) or [optimizer]
    for one in inner:
        one.learning_rate = float(keras.ops.convert_to_numpy(one.learning_rate)) * factor


def _one_optimizer(config: OptimizerConfig, rate: Rate, variables: list[keras.Variable]) -> keras.optimizers.Optimizer:
    builders: dict[str, Callable[..., Any]] = {
        "adamw": keras.optimizers.AdamW,
        "adam": keras.optimizers.Adam,
        "lion": keras.optimizers.Lion,
        "sgd": keras.optimizers.SGD,
        "rmsprop": keras.optimizers.RMSprop,
    }
    optimizer = builders[config.name](
        learning_rate=rate, weight_decay=config.weight_decay, global_clipnorm=config.clip_norm, **_own(config)
    )
    # Biases, normalisation and scales are the variables with at most one dimension.
    optimizer.exclude_from_weight_decay(var_list=[variable for variable in variables if len(variable.shape) <= 1])
    return optimizer


def _own(config: OptimizerConfig) -> dict[str, Any]:
    """Return the settings that only this algorithm has."""
    match config.name:
        case "sgd":
            return {"momentum": config.momentum, "nesterov": config.nesterov and config.momentum > 0}
        case "rmsprop":
            return {"momentum": config.momentum}
        case _:
            return {"beta_1": config.beta_1, "beta_2": config.beta_2}
