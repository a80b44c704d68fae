"""Preparing a stage: trainable layers, learning rates by block, optimizer, schedule, loss and compiled model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.data.loading.targets import ValueScale
from imagetune.errors import RecipeError
from imagetune.model.backbones.table import Backbone
from imagetune.model.build import build_logits_model, find_backbone
from imagetune.model.devices import find_device
from imagetune.model.split_model import SplitModel, list_frozen_boundaries
from imagetune.model.trainable import TrainableSummary, list_blocks, list_leaf_layers, set_trainable
from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.recipe.tasks import Task
from imagetune.training.objectives.losses import build_loss
from imagetune.training.objectives.metrics import Tally, build_tally
from imagetune.training.objectives.penalties import PretrainedWeights, set_penalties
from imagetune.training.optimization.optimizer import (
    Group,
    LearningRate,
    Slots,
    build_optimizer,
    find_trainable_variables,
)
from imagetune.training.optimization.schedules import StageSchedule

HEAD = "head"


@dataclass(frozen=True)
class Objective:
    """The training objective: task, class priors, and what penalties and targets refer to.

    Attributes:
        task: What a label is.
        priors: (k,) shares of the classes in training; None where there are no classes.
        anchors: Pretrained weights of the backbone for L2-SP; empty without it.
        scale: For regression: mean and deviation that labels are normalised with.
    """

    task: Task = "single_label"
    priors: NDArray[np.float64] | None = None
    anchors: PretrainedWeights = ()
    scale: ValueScale | None = None


@dataclass(frozen=True)
class StageSetup:
    """A prepared stage: the compiled model with its schedule, metrics and learning rates.

    Attributes:
        stage: Values of the stage, with a number for the learning rate.
        learner: Compiled model from raw images, or from features of frozen layers, to logits; it shares its layers with
            the whole model.
        tally: Keras metric that sums up the epoch's predictions.
        schedule: Learning-rate schedule of the head.
        learning_rates: Peak learning rate of each group of layers, input to output.
        trainable_parameters: Number of trainable parameters.
        parameters: Number of all parameters of the model.
    """

    stage: StageConfig
    learner: keras.Model
    tally: Tally
    schedule: StageSchedule
    learning_rates: dict[str, float]
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
    halves: SplitModel | None = None,
) -> StageSetup:
    """Return a stage ready to train: the model's layers frozen and unfrozen, and the learner compiled.

    Args:
        model: A model made by ``build_model``; its layers are set trainable or frozen.
        backbone: Its row in the table.
        stage: Values of the stage, with a number for the learning rate.
        train: Settings that all stages share.
        steps_per_epoch: Number of passes in an epoch.
        objective: Training objective; one class of several by default.
        slots: Optimizer slots of earlier stages.
        halves: The model split after frozen layers: the learner then takes features in the place of images.

    Raises:
        RecipeError: ``unfreeze`` names a block or layer that the backbone doesn't have.
    """
    objective, slots = objective or Objective(), slots or Slots()
    # First of all: penalties, groups and the optimizer look at which variables are trainable.
    summary = _set_trainable(model, backbone, stage)
    set_penalties(find_backbone(model), train.regularisation, objective.anchors)
    blocks = _group_variables(model, backbone, decayed=stage.layer_decay < 1.0)
    learning_rates = decay_learning_rates(list(blocks), stage)
    updates = steps_per_epoch / train.accumulation
    schedule = StageSchedule(stage.peak_rate, stage.schedule, steps_per_epoch=updates, epochs=stage.epochs)
    groups = _build_groups(blocks, learning_rates, schedule, slots, train.accumulation)
    learner = build_logits_model(model) if halves is None else halves.logits
    tally = build_tally(objective.task, int(learner.output_shape[-1]), objective.scale)
    _compile(learner, train, objective, groups, slots, tally)
    return StageSetup(
        stage,
        learner,
        tally,
        schedule,
        {name: value for name, value in learning_rates.items() if blocks[name]},
        summary.trainable_parameters,
        summary.trainable_parameters + summary.frozen_parameters,
    )


def _compile(
    learner: keras.Model, train: TrainConfig, objective: Objective, groups: Sequence[Group], slots: Slots, tally: Tally
) -> None:
    """Compile the learner with its optimizer, loss and metrics."""
    # Anew in every stage, because Keras notes at compiling what is trainable. Several steps an execution would not do:
    # Keras rounds an epoch of 61 steps up to 64 (docs/performance.md).
    learner.compile(
        optimizer=build_optimizer(
            train.optimizer, groups, slots=slots, average=train.average, accumulation=train.accumulation
        ),
        loss=build_loss(
            train.loss,
            objective.task,
            label_smoothing=train.label_smoothing,
            priors=objective.priors,
            teacher=train.teacher,
        ),
        metrics=[tally],
        jit_compile=_resolve_jit_compile(train.jit_compile),
    )


def _set_trainable(model: keras.Model, backbone: Backbone, stage: StageConfig) -> TrainableSummary:
    return set_trainable(
        model,
        backbone,
        stage.unfreeze,
        batch_norm=stage.batch_norm,
        freeze_head=stage.freeze_head,
        adapt=stage.adapt,
    )


def check_stages(model: keras.Model, backbone: Backbone, stages: Sequence[StageConfig]) -> None:
    """Refuse stages whose ``unfreeze`` or ``cache`` don't fit the backbone, before anything is trained.

    Raises:
        RecipeError: One names a block or layer that the backbone doesn't have, or ``cache`` a block that is trained, or
            ``adapt`` leaves nothing to train.
    """
    for index, stage in enumerate(stages):
        try:
            boundaries = list_frozen_boundaries(model, backbone, stage.unfreeze)
            _set_trainable(model, backbone, stage)
        except RecipeError as error:
            raise RecipeError(error.what, where=f"train.stages[{index}].{error.where}", hint=error.hint) from error
        if stage.cache not in (None, "auto", "off", *boundaries):
            what = f"{stage.cache!r} is not a frozen block of {backbone.name} in stage {stage.name!r}"
            there = ", ".join(["auto", "off", *boundaries])
            raise RecipeError(what, where=f"train.stages[{index}].cache", hint=f"choose one of: {there}")


def decay_learning_rates(groups: Sequence[str], stage: StageConfig) -> dict[str, float]:
    """Return the peak learning rate of each group of layers, which are in order with the head last.

    Layer-wise learning-rate decay as in Howard and Ruder 2018 (arXiv 1801.06146), with the factor free.
    """
    last = len(groups) - 1
    return {group: stage.peak_rate * stage.layer_decay ** (last - index) for index, group in enumerate(groups)}


def _build_groups(
    blocks: Mapping[str, Mapping[int, keras.Variable]],
    learning_rates: Mapping[str, float],
    peak: StageSchedule,
    slots: Slots,
    accumulation: int,
) -> list[Group]:
    """Return the groups of variables: those of each block, split by the number of their earlier updates.

    Args:
        blocks: Variables of each block, by their position among the model's weights.
        learning_rates: Peak learning rate of each block.
        peak: Schedule of the head in this stage.
        slots: Optimizer slots of earlier stages.
        accumulation: Number of passes in an optimizer step.
    """
    groups = []
    for name, variables in blocks.items():
        # An optimizer has one count of updates for all its variables, and Adam's bias correction needs the true one.
        for age in sorted({slots.steps.get(position, 0) for position in variables}):
            peers = {at: one for at, one in variables.items() if slots.steps.get(at, 0) == age}
            groups.append(Group(_build_schedule(learning_rates[name], peak, age, accumulation), peers, age))
    return groups


def _build_schedule(learning_rate: float, peak: StageSchedule, first_step: int, accumulation: int) -> LearningRate:
    if peak.config.name == "plateau":
        return learning_rate  # it depends on how training goes, so the callback moves it
    return StageSchedule(
        learning_rate,
        peak.config,
        steps_per_epoch=peak.steps_per_epoch,
        epochs=peak.epochs,
        first_step=first_step,
        accumulation=accumulation,
    )


def _group_variables(model: keras.Model, backbone: Backbone, *, decayed: bool) -> dict[str, dict[int, keras.Variable]]:
    """Return the trainable variables of each block, input to output, then of the head; or all as the head's."""
    everything = find_trainable_variables(model)
    if not decayed:
        return {HEAD: everything}
    layers = {layer.name: layer for layer in list_leaf_layers(find_backbone(model))}
    block_of = {
        id(variable): block.name
        for block in list_blocks(model, backbone)
        for name in block.layers
        for variable in layers[name].trainable_variables
    }
    names = [*(block.name for block in list_blocks(model, backbone)), HEAD]
    blocks: dict[str, dict[int, keras.Variable]] = {name: {} for name in names}
    for position, variable in everything.items():
        blocks[block_of.get(id(variable), HEAD)][position] = variable
    return {name: variables for name, variables in blocks.items() if variables or name == HEAD}


def _resolve_jit_compile(setting: str | bool) -> bool | str:
    if setting != "auto":
        return setting
    # Measured: XLA makes most backbones slower on the CPU with TensorFlow. Other backends decide by themselves.
    return False if find_device().is_tensorflow_cpu else "auto"
