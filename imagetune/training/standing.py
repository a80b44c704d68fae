"""Where training stood at the end of an epoch, complete enough to go on from there as if it had never stopped.

Beside the weights of the checkpoint these are: position and best epoch; optimizer slots, counts and rate; the random
state of dropout; weights that are being averaged and their averages; how long early stopping and plateau have waited;
what the stage measured once (learning rate, where features are cut). Order, augmentation and blending of pictures
follow from (seed, epoch, index) alone and need nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.errors import CheckpointError
from imagetune.training.averaging import KeptWeights
from imagetune.training.checkpoints import Resume, Start, checkpoints_in, copy_checkpoint, reopen_checkpoint
from imagetune.training.events import EpochRecord
from imagetune.training.schedules import PlateauState


@dataclass(frozen=True)
class Position:
    """How far training has come: finished epochs and passes over all stages."""

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Best:
    """The best epoch so far, and the checkpoint with its weights."""

    record: EpochRecord
    checkpoint: Path


@dataclass(frozen=True)
class Patience:
    """How long a stage has waited for an improvement.

    Attributes:
        stalled_epochs: Of early stopping.
        plateau: Of the plateau schedule.
    """

    stalled_epochs: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)


@dataclass(frozen=True)
class StageFacts:
    """What a stage has found out or been given at its beginning.

    Attributes:
        learning_rate: Its peak rate, a number.
        boundary: Where the model is cut for cached features; ``off`` without.
        reason: Why.
        ages: Updates that variables have had in earlier stages, by place.
    """

    learning_rate: float
    boundary: str
    reason: str
    ages: dict[int, int]


@dataclass(frozen=True)
class Standing:
    """Where training stood after an epoch of a stage.

    Attributes:
        stage: Name of the stage.
        began: Position before the stage.
        position: Position now.
        over: Whether the stage has had all its epochs, or was stopped early.
        best: The best epoch so far.
        learned: Places of the weights that stages have trained.
        patience: How long the stage has waited for an improvement.
        averaged_epochs: Epochs in the average of SWA.
        facts: What the stage began with.
        arrays: What `remembered` returned.
    """

    stage: str
    began: Position
    position: Position
    over: bool
    best: Best
    learned: frozenset[int]
    patience: Patience
    averaged_epochs: int
    facts: StageFacts
    arrays: dict[str, NDArray[Any]]

    def as_resume(self) -> Resume:
        """Return what a checkpoint of this moment holds beside the weights."""
        values = {
            "began": asdict(self.began),
            "over": self.over,
            "best": {"record": self.best.record.as_json(), "checkpoint": self.best.checkpoint.name},
            "learned": sorted(self.learned),
            "patience": asdict(self.patience),
            "averaged_epochs": self.averaged_epochs,
            "facts": {**asdict(self.facts), "ages": sorted(self.facts.ages.items())},
        }
        return Resume(values, self.arrays)


def remembered(model: keras.Model, optimizer: keras.optimizers.Optimizer, weights: KeptWeights) -> dict[str, Any]:
    """Return the arrays of a stage that the weights of its checkpoint don't hold.

    Args:
        model: The run's model.
        optimizer: The stage's.
        weights: What the stage trains and keeps.
    """
    found = {f"optimizer/{index}": variable for index, variable in enumerate(optimizer.variables)}
    found |= {f"random/{index}": variable for index, variable in enumerate(_random_states(model))}
    if weights.trained is not model:
        found |= {f"stage_random/{index}": one for index, one in enumerate(_random_states(weights.trained))}
    arrays = {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in found.items()}
    return {**arrays, **weights.remembered()}


def reopen(folder: Path, own: Path, model: keras.Model) -> tuple[Standing, Start]:
    """Put the weights and random state of the newest checkpoint of an earlier training into ``model``.

    That checkpoint, and the best one so far, get a second name among the run's own.

    Args:
        folder: Checkpoints of a training of the same recipe that ended with an epoch.
        own: Folder of the checkpoints of the training that goes on.
        model: Built as for the earlier one.

    Raises:
        CheckpointError: There is none, it is damaged, or nobody can go on from it.
    """
    there = checkpoints_in(folder)
    if not there:
        raise CheckpointError("there is no checkpoint to go on from", where=str(folder))
    newest = copy_checkpoint(there[-1], own)
    state, resume, start = reopen_checkpoint(newest, model)
    try:
        standing = _standing(state.stage, Position(state.epoch, state.step), resume, own)
        _assign("random", _random_states(model), standing.arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"training can't go on from here: {error!r}", where=str(there[-1])) from error
    if standing.best.checkpoint != newest:
        copy_checkpoint(folder / standing.best.checkpoint.name, own)
    return standing, start


def put_back(standing: Standing, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
    """Give an optimizer, built for the stage as at its beginning, the state that it had.

    Raises:
        CheckpointError: The optimizer is another one.
    """
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    try:
        _assign("optimizer", optimizer.variables, standing.arrays)
    except (KeyError, ValueError) as error:
        where = f"stage {standing.stage!r}"
        raise CheckpointError("the optimizer is not the one that was kept", where=where) from error


def put_back_weights(standing: Standing, weights: KeptWeights) -> None:
    """Give a stage the weights that it learned with, their averages, and its random state."""
    weights.put_back(standing.arrays, standing.averaged_epochs)
    states = {name for name in standing.arrays if name.startswith("stage_random/")}
    if states:
        _assign("stage_random", _random_states(weights.trained), standing.arrays)


def _standing(stage: str, position: Position, resume: Resume, folder: Path) -> Standing:
    values = resume.values
    best, patience, facts = values["best"], values["patience"], values["facts"]
    return Standing(
        stage=stage,
        began=Position(**values["began"]),
        position=position,
        over=values["over"],
        best=Best(EpochRecord(**best["record"]), folder / best["checkpoint"]),
        learned=frozenset(values["learned"]),
        patience=Patience(patience["stalled_epochs"], PlateauState(**patience["plateau"])),
        averaged_epochs=values["averaged_epochs"],
        facts=replace(StageFacts(**facts), ages=dict(facts["ages"])),
        arrays=resume.arrays,
    )


def _random_states(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that are no weights: the state of seed generators."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _assign(kind: str, variables: Sequence[keras.Variable], arrays: dict[str, NDArray[Any]]) -> None:
    if sum(name.startswith(f"{kind}/") for name in arrays) != len(variables):
        raise ValueError(f"there are {len(variables)} variables of the kind {kind!r}")
    for index, variable in enumerate(variables):
        variable.assign(arrays[f"{kind}/{index}"])
