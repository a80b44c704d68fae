"""A stage made ready: layers set trainable, rates of the blocks, optimizer and schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.targets import ValueScale
from imagetune.errors import RecipeError
from imagetune.model.backbones import Backbone
from imagetune.model.build import backbone_of, logits_model
from imagetune.model.devices import tensorflow_on_cpu
from imagetune.model.halves import Halves, frozen_boundaries
from imagetune.model.trainable import blocks_of, leaf_layers, set_trainable
from imagetune.recipe.data import Task
from imagetune.recipe.train import StageConfig, TrainConfig
from imagetune.training.losses import build_loss
from imagetune.training.metrics import Tally, build_tally
from imagetune.training.optimizer import Group, Rate, Slots, build_optimizer, trainable_by_place
from imagetune.training.penalties import Anchors, set_penalties
from imagetune.training.schedules import StageSchedule

HEAD = "head"


@dataclass(frozen=True)
class Objective:
    """What the model is to answer.

    Attributes:
        task: What a label is.
        priors: (k,) shares of the classes in training; None where there are no classes.
        anchors: Pretrained weights of the backbone for L2-SP; empty without it.
        scale: Of regression: what labels are normalised with.
    """

    task: Task = "single_label"
    priors: NDArray[np.float64] | None = None
    anchors: Anchors = ()
    scale: ValueScale | None = None


@dataclass(frozen=True)
class StageSetup:
    """What a stage trains with.

    Attributes:
        learner: The compiled model from raw pictures, or from features of a frozen part, to logits; shares its layers
            with the whole model.
        tally: The metric that counts the epoch's predictions.
        schedule: Learning rate of the head.
        rates: Peak learning rate of each group of layers, input to output.
        trainable_parameters: Parameters that learn.
        parameters: All parameters of the model.
    """

    learner: keras.Model
    tally: Tally
    schedule: StageSchedule
    rates: dict[str, float]
    trainable_parameters: int
    parameters: int


def prepare_stage(
    model: keras.Model,
    backbone: Backbone,
    stage: StageConfig,
    train: TrainConfig,
    *,
    steps_per_epoch: int,
    objective: Objective | None = None,
    slots: Slots | None = None,
    halves: Halves | None = None,
) -> StageSetup:
    """Freeze and unfreeze layers for a stage and compile an optimizer for what is left trainable.

    Args:
        model: Made by ``build_model``; its layers are set for the stage.
        backbone: What it is built on.
        stage: The stage's values, its learning rate a number.
        train: What all stages share.
        steps_per_epoch: Passes an epoch.
        objective: What the model is to answer; one class of several by default.
        slots: What the optimizer remembers of earlier stages.
        halves: The model cut behind layers that are frozen: then the learner takes features for pictures.

    Raises:
        RecipeError: ``unfreeze`` names what the backbone doesn't have.
    """
    objective = objective or Objective()
    summary = set_trainable(model, backbone, stage.unfreeze, batch_norm=stage.batch_norm, freeze_head=stage.freeze_head)
    set_penalties(backbone_of(model), train.regularisation, objective.anchors)
    blocks = _variable_blocks(model, backbone, decayed=stage.layer_decay < 1.0)
    rates = block_rates(list(blocks), stage)
    learner = logits_model(model) if halves is None else halves.logits
    tally = build_tally(objective.task, int(learner.output_shape[-1]), objective.scale)
    updates = steps_per_epoch / train.accumulation
    learner.compile(
        optimizer=build_optimizer(
            train.optimizer,
            _groups(blocks, rates, stage, updates, slots or Slots(), train.accumulation),
            slots=slots,
            average=train.average,
            accumulation=train.accumulation,
        ),
        loss=build_loss(
            train.loss,
            objective.task,
            label_smoothing=train.label_smoothing,
            priors=objective.priors,
            teacher=train.teacher,
        ),
        metrics=[tally],
        jit_compile=_jit_compile(train.jit_compile),
    )
    return StageSetup(
        learner,
        tally,
        StageSchedule(stage.peak_rate, stage.schedule, steps_per_epoch=updates, epochs=stage.epochs),
        {name: rate for name, rate in rates.items() if blocks[name]},
        summary.trainable_parameters,
        summary.trainable_parameters + summary.frozen_parameters,
    )


def check_stages(model: keras.Model, backbone: Backbone, stages: Sequence[StageConfig]) -> None:
    """Make sure that every stage's ``unfreeze`` and ``cache`` find their layers, before anything is written or trained.

    Raises:
        RecipeError: It names what the backbone doesn't have, or what learns in the stage.
    """
    for index, stage in enumerate(stages):
        try:
            boundaries = frozen_boundaries(model, backbone, stage.unfreeze)
        except RecipeError as error:
            raise RecipeError(error.what, where=f"train.stages[{index}].unfreeze", hint=error.hint) from error
        if stage.cache not in (None, "auto", "off", *boundaries):
            what = f"{stage.cache!r} is no frozen part of {backbone.name} in stage {stage.name!r}"
            there = ", ".join(["auto", "off", *boundaries])
            raise RecipeError(what, where=f"train.stages[{index}].cache", hint=f"choose one of: {there}")


def block_rates(groups: list[str], stage: StageConfig) -> dict[str, float]:
    """Return the peak rate of each group, given input to output with the head last.

    Layer-wise decay as in Howard and Ruder 2018 (arXiv 1801.06146), with the factor free.
    """
    last = len(groups) - 1
    return {group: stage.peak_rate * stage.layer_decay ** (last - index) for index, group in enumerate(groups)}


def _groups(
    blocks: dict[str, dict[int, keras.Variable]],
    rates: dict[str, float],
    stage: StageConfig,
    updates_per_epoch: float,
    slots: Slots,
    accumulation: int,
) -> list[Group]:
    """Return the variables of each block, those that have learned before apart from those that begin now."""
    groups = []
    for name, variables in blocks.items():
        for age in sorted({slots.steps.get(place, 0) for place in variables}):
            peers = {place: one for place, one in variables.items() if slots.steps.get(place, 0) == age}
            groups.append(Group(_schedule(rates[name], stage, updates_per_epoch, age, accumulation), peers, age))
    return groups


def _schedule(rate: float, stage: StageConfig, updates_per_epoch: float, first_step: int, accumulation: int) -> Rate:
    if stage.schedule.name == "plateau":
        return rate
    return StageSchedule(
        rate,
        stage.schedule,
        steps_per_epoch=updates_per_epoch,
        epochs=stage.epochs,
        first_step=first_step,
        accumulation=accumulation,
    )


def _variable_blocks(model: keras.Model, backbone: Backbone, *, decayed: bool) -> dict[str, dict[int, keras.Variable]]:
    """Return the trainable variables of each block that has any, input to output, then of the head; or all as one."""
    everything = trainable_by_place(model)
    if not decayed:
        return {HEAD: everything}
    layers = {layer.name: layer for layer in leaf_layers(backbone_of(model))}
    block_of = {
        id(variable): block.name
        for block in blocks_of(model, backbone)
        for name in block.layers
        for variable in layers[name].trainable_variables
    }
    names = [*(block.name for block in blocks_of(model, backbone)), HEAD]
    blocks: dict[str, dict[int, keras.Variable]] = {name: {} for name in names}
    for place, variable in everything.items():
        blocks[block_of.get(id(variable), HEAD)][place] = variable
    return {name: variables for name, variables in blocks.items() if variables or name == HEAD}


def _jit_compile(setting: str | bool) -> bool | str:
    if setting != "auto":
        return setting
    # Measured: XLA makes most backbones slower on the CPU with TensorFlow. The other backends decide for themselves.
    return False if tensorflow_on_cpu() else "auto"
