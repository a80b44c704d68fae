"""Keras optimizers: weight decay of kernels only, learning rates by group of layers, slots kept between stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import keras
import numpy as np

from imagetune.model.backbones.vision_transformer import CLASS_TOKEN, POSITION_EMBEDDING
from imagetune.recipe.sections.learning import AverageConfig
from imagetune.recipe.sections.train import OptimizerConfig

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule
# Kinds of slots that mean nothing outside their stage.
_STAGE_SLOTS = ("gradient_accumulator", "average")


@dataclass(frozen=True)
class Slots:
    """Optimizer slots of each variable, such as momentum, carried from stage to stage.

    A variable is identified by its position among the model's weights, which is the same in a model built again for
    another image size.

    Attributes:
        values: Array of each slot, by position and kind (``momentum``).
        steps: Number of updates that a variable has had, by position; Adam's bias correction needs it.
    """

    values: dict[tuple[int, str], np.ndarray] = field(default_factory=dict)
    steps: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """A group of variables with the same learning rate and the same number of earlier updates.

    Attributes:
        learning_rate: Learning rate as a number or a schedule.
        variables: Trainable variables, by their position among the model's weights.
        steps: Number of updates that they have had in earlier stages.
    """

    learning_rate: LearningRate
    variables: Mapping[int, keras.Variable]
    steps: int = 0


class GroupedOptimizer(keras.optimizers.MultiOptimizer):
    """An optimizer for each group of variables, with gradients clipped by their global norm over all groups.

    Args:
        select: Returns the optimizer of a variable.
        clip_norm: Largest global norm; None doesn't clip.
    """

    def __init__(self, select: Callable[[keras.Variable], keras.optimizers.Optimizer], clip_norm: float | None) -> None:
        super().__init__(select)
        self.clip_norm = clip_norm

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable] | None = None) -> None:
        """Clip all gradients together, then let each group's optimizer apply its own."""
        # Each optimizer alone would clip by the norm of its own group.
        if self.clip_norm is not None:
            # In half precision the squares would overflow.
            squares = [keras.ops.sum(keras.ops.square(keras.ops.cast(grad, "float32"))) for grad in grads]
            norm = keras.ops.sqrt(keras.ops.sum(keras.ops.stack(squares)))
            # The maximum keeps the factor at 1 or below, and gradients of zero from a division by zero.
            scale = self.clip_norm / keras.ops.maximum(norm, self.clip_norm)
            grads = [grad * keras.ops.cast(scale, grad.dtype) for grad in grads]
        super().apply(grads, trainable_variables)


def build_optimizer(
    config: OptimizerConfig,
    groups: Sequence[Group],
    *,
    slots: Slots | None = None,
    average: AverageConfig | None = None,
    accumulation: int = 1,
) -> keras.optimizers.Optimizer:
    """Return a built optimizer for all groups, with one optimizer inside for each where there are several.

    Args:
        config: Algorithm and its settings. ``clip_norm`` applies to all groups together; with accumulation and more
            than one group, to the gradients of each pass.
        groups: Groups of variables, with every trainable variable in exactly one.
        slots: Optimizer slots of earlier stages.
        average: With ``ema``, the optimizer also keeps averaged weights; ``finalize_variable_values`` puts them into
            the variables.
        accumulation: Number of passes whose mean gradient makes one update.
    """
    ema = average.decay if average is not None and average.name == "ema" else None
    several = len(groups) > 1
    optimizers = [_build_group_optimizer(config, group, ema, accumulation, clip=not several) for group in groups]
    for optimizer, group in zip(optimizers, groups, strict=True):
        optimizer.build(list(group.variables.values()))
        _restore_slots(optimizer, group, slots or Slots(), accumulation)
    if not several:
        return optimizers[0]
    group_of = {id(variable): index for index, group in enumerate(groups) for variable in group.variables.values()}
    grouped = GroupedOptimizer(lambda variable: optimizers[group_of[id(variable)]], config.clip_norm)
    everything = {position: variable for group in groups for position, variable in group.variables.items()}
    # In the order of the model's weights: gradients come in it.
    grouped.build([everything[position] for position in sorted(everything)])
    return grouped


def read_slots(optimizer: keras.optimizers.Optimizer, variables: Mapping[int, keras.Variable]) -> Slots:
    """Return the optimizer slots of variables, given by position, for the optimizer of the next stage."""
    values: dict[tuple[int, str], np.ndarray] = {}
    steps: dict[int, int] = {}
    for inner in list_inner_optimizers(optimizer):
        updates = int(keras.ops.convert_to_numpy(inner.iterations))
        for (position, kind), slot in _find_slots(inner, variables).items():
            if kind not in _STAGE_SLOTS:
                values[position, kind] = keras.ops.convert_to_numpy(slot).copy()
                steps[position] = updates
    return Slots(values, steps)


def find_trainable_variables(model: keras.Model) -> dict[int, keras.Variable]:
    """Return the trainable variables by their position among the model's weights, in the optimizer's order."""
    positions = {id(variable): position for position, variable in enumerate(model.weights)}
    return {positions[id(variable)]: variable for variable in model.trainable_variables}


def list_inner_optimizers(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """Return the optimizers inside loss scaling and groups, which update the variables."""
    # float16 wraps the optimizer in one that scales the loss, whatever the recipe asks for.
    scaled = getattr(optimizer, "inner_optimizer", optimizer)
    return list(getattr(scaled, "optimizers", None) or [scaled])


def scale_learning_rate(optimizer: keras.optimizers.Optimizer, factor: float) -> None:
    """Multiply the constant learning rate of an optimizer, and of all optimizers inside it, by a factor."""
    for one in list_inner_optimizers(optimizer):
        one.learning_rate = float(keras.ops.convert_to_numpy(one.learning_rate)) * factor


def _build_group_optimizer(
    config: OptimizerConfig, group: Group, ema: float | None, accumulation: int, *, clip: bool
) -> keras.optimizers.Optimizer:
    builders: dict[str, Callable[..., Any]] = {
        "adamw": keras.optimizers.AdamW,
        "adam": keras.optimizers.Adam,
        "lion": keras.optimizers.Lion,
        "sgd": keras.optimizers.SGD,
        "rmsprop": keras.optimizers.RMSprop,
    }
    optimizer = builders[config.name](
        learning_rate=group.learning_rate,
        weight_decay=config.weight_decay,
        # With several groups, `GroupedOptimizer` clips by the norm over all of them.
        global_clipnorm=config.clip_norm if clip else None,
        # Keras takes only one way of clipping.
        clipvalue=config.clip_value if config.clip_norm is None else None,
        use_ema=ema is not None,
        ema_momentum=0.99 if ema is None else ema,
        # Keras refuses 1, which means no accumulation.
        gradient_accumulation_steps=accumulation if accumulation > 1 else None,
        **_select_settings(config),
    )
    # Keras doesn't save this list; every stage builds its optimizers anew.
    optimizer.exclude_from_weight_decay(var_list=[one for one in group.variables.values() if not _is_decayed(one)])
    return optimizer


def _is_decayed(variable: keras.Variable) -> bool:
    """Return whether weight decay pulls a variable: a kernel, as vision transformers are trained as well."""
    # Biases, normalisation and scales are the variables with at most one dimension.
    return len(variable.shape) > 1 and not any(name in variable.path for name in (CLASS_TOKEN, POSITION_EMBEDDING))


def _restore_slots(optimizer: keras.optimizers.Optimizer, group: Group, slots: Slots, accumulation: int) -> None:
    """Restore a group's slots and number of updates; moving averages start from the current weights."""
    for (position, kind), slot in _find_slots(optimizer, group.variables).items():
        if kind == "average":
            # A copy: JAX refuses to update two variables that share a buffer.
            slot.assign(keras.ops.convert_to_numpy(group.variables[position]).copy())
        elif group.steps and (position, kind) in slots.values:
            slot.assign(slots.values[position, kind])
    # With accumulation Keras counts passes here, and gives updates only as `iterations`.
    optimizer.variables[0].assign(group.steps * accumulation)  # the count of iterations is always the first


def _find_slots(
    optimizer: keras.optimizers.Optimizer, variables: Mapping[int, keras.Variable]
) -> dict[tuple[int, str], keras.Variable]:
    """Return the optimizer's variables by the position of their reference and their kind: Keras names them so."""
    names = {slot.name: slot for slot in optimizer.variables}
    kinds = ("momentum", "velocity", "average", "gradient_accumulator")
    found = {}
    for position, variable in variables.items():
        for kind in kinds:
            slot = names.get(f"{variable.path.replace('/', '_')}_{kind}")
            if slot is not None:
                found[position, kind] = slot
    return found


def _select_settings(config: OptimizerConfig) -> dict[str, Any]:
    """Return the settings that only this algorithm has, as Keras's arguments."""
    match config.name:
        case "sgd":
            return {"momentum": config.momentum, "nesterov": config.nesterov and config.momentum > 0}
        case "rmsprop":
            return {"momentum": config.momentum}
        case _:
            return {"beta_1": config.beta_1, "beta_2": config.beta_2}
