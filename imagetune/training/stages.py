"""A stage made ready: layers set trainable, rates of the blocks, optimizer and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras

from imagetune.errors import RecipeError
from imagetune.model.backbones import Backbone
from imagetune.model.build import backbone_of, logits_model
from imagetune.model.trainable import blocks_of, chosen_layers, leaf_layers, set_trainable
from imagetune.recipe.train import StageConfig, TrainConfig
from imagetune.training.metrics import ConfusionTally
from imagetune.training.optimizer import Rate, build_optimizer
from imagetune.training.schedules import StageSchedule

HEAD = "head"


@dataclass(frozen=True)
class StageSetup:
    """What a stage trains with.

    Attributes:
        learner: The compiled model from raw pictures to logits; shares its layers with the whole model.
        tally: The metric that counts the epoch's predictions.
        schedule: Learning rate of the head.
        rates: Peak learning rate of each group of layers, input to output.
        trainable_parameters: Parameters that learn.
        parameters: All parameters of the model.
    """

    learner: keras.Model
    tally: ConfusionTally
    schedule: StageSchedule
    rates: dict[str, float]
    trainable_parameters: int
    parameters: int


def prepare_stage(
    model: keras.Model, backbone: Backbone, stage: StageConfig, train: TrainConfig, *, steps_per_epoch: int
) -> StageSetup:
    """Freeze and unfreeze layers for a stage and compile a fresh optimizer for what is left trainable.

    Raises:
        RecipeError: ``unfreeze`` names what the backbone doesn't have.
    """
    summary = set_trainable(model, backbone, stage.unfreeze, batch_norm=stage.batch_norm)
    groups = _variable_groups(model, backbone, decayed=stage.layer_decay < 1.0)
    rates = block_rates(list(groups), stage)
    schedules: dict[str, Rate] = {group: _schedule(rate, stage, steps_per_epoch) for group, rate in rates.items()}
    learner = logits_model(model)
    num_classes = int(learner.output_shape[-1])
    tally = ConfusionTally(num_classes)
    learner.compile(
        optimizer=build_optimizer(train.optimizer, schedules, groups),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=train.label_smoothing),
        metrics=[tally],
        jit_compile=_jit_compile(),
    )
    schedule = StageSchedule(stage.peak_rate, stage.schedule, steps_per_epoch=steps_per_epoch, epochs=stage.epochs)
    return StageSetup(
        learner,
        tally,
        schedule,
        rates,
        summary.trainable_parameters,
        summary.trainable_parameters + summary.frozen_parameters,
    )


def check_stages(model: keras.Model, backbone: Backbone, stages: Sequence[StageConfig]) -> None:
    """Make sure that every stage's ``unfreeze`` finds its layers, before anything is written or trained.

    Raises:
        RecipeError: It names what the backbone doesn't have.
    """
    for index, stage in enumerate(stages):
        try:
            chosen_layers(model, backbone, stage.unfreeze)
        except RecipeError as error:
            raise RecipeError(error.what, where=f"train.stages[{index}].unfreeze", hint=error.hint) from error


def block_rates(groups: list[str], stage: StageConfig) -> dict[str, float]:
    """Return the peak rate of each group, given input to output with the head last.

    Layer-wise decay as in Howard and Ruder 2018 (arXiv 1801.06146), with the factor free.
    """
    last = len(groups) - 1
    return {group: stage.peak_rate * stage.layer_decay ** (last - index) for index, group in enumerate(groups)}


def _schedule(rate: float, stage: StageConfig, steps_per_epoch: int) -> Rate:
    if stage.schedule.name == "plateau":
        return rate
    return StageSchedule(rate, stage.schedule, steps_per_epoch=steps_per_epoch, epochs=stage.epochs)


def _variable_groups(model: keras.Model, backbone: Backbone, *, decayed: bool) -> dict[str, list[keras.Variable]]:
    """Return the trainable variables of each block that has any, input to output, then of the head; or all as one."""
    if not decayed:
        return {HEAD: list(model.trainable_variables)}
    layers = {layer.name: layer for layer in leaf_layers(backbone_of(model))}
    groups = {
        block.name: [variable for name in block.layers for variable in layers[name].trainable_variables]
        for block in blocks_of(model, backbone)
    }
    grouped = {id(variable) for variables in groups.values() for variable in variables}
    head = [variable for variable in model.trainable_variables if id(variable) not in grouped]
    return {**{name: variables for name, variables in groups.items() if variables}, HEAD: head}


def _jit_compile() -> bool | str:
    # Measured: XLA makes most backbones slower on the CPU with TensorFlow. The other backends decide for themselves.
    on_cpu = keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu")
    return False if on_cpu else "auto"
