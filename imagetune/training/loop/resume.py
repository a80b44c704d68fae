"""Resuming training from a checkpoint, exactly as if it had never stopped.

Beside the weights of the checkpoint that needs the values of `TrainingState` and arrays: the optimizer's variables with
its number of updates, the random state of dropout, weights that are being averaged with their averages, and in the
middle of an epoch the sums of its metrics. Order, augmentation and mixing of images follow from (seed, epoch, index)
alone and need nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.errors import CheckpointError
from imagetune.training.loop.checkpoints import (
    InitialWeights,
    ResumePoint,
    copy_checkpoint,
    remove_later_checkpoints,
    reopen_checkpoint,
)
from imagetune.training.loop.state import TrainingState
from imagetune.training.loop.weight_averaging import KeptWeights


def collect_arrays(
    model: keras.Model, learner: keras.Model, weights: KeptWeights, tally: keras.metrics.Metric | None = None
) -> dict[str, NDArray[Any]]:
    """Return copies of the arrays that resuming needs beside the weights of a checkpoint, by name.

    Args:
        model: The run's model.
        learner: The compiled model of the stage.
        weights: Weights that the stage trains and keeps.
        tally: In the middle of an epoch the metric that sums up its predictions.
    """
    if keras.backend.backend() == "jax":  # during an epoch its state lives outside the variables
        learner.jax_state_sync()
    found = {f"optimizer/{index}": variable for index, variable in enumerate(learner.optimizer.variables)}
    if tally is not None:
        found |= {f"metric/{index}": variable for index, variable in enumerate(_list_sums(learner, tally))}
    found |= {f"random/{index}": variable for index, variable in enumerate(_list_random_states(model))}
    if weights.trained is not model:
        found |= {f"stage_random/{index}": one for index, one in enumerate(_list_random_states(weights.trained))}
    # Copied: what convert_to_numpy returns may share the variable's memory, which swapping averages in overwrites.
    arrays = {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in found.items()}
    return {**arrays, **weights.collect_arrays()}


def collect_solved_arrays(model: keras.Model) -> dict[str, NDArray[Any]]:
    """Return copies of the arrays that resuming after a solved head needs, which has no optimizer: never empty."""
    states = {f"random/{index}": variable for index, variable in enumerate(_list_random_states(model))}
    arrays = {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in states.items()}
    # A checkpoint without arrays can't be resumed from.
    return {**arrays, "solved": np.ones(1)}


def reopen_training(point: ResumePoint, own: Path, model: keras.Model) -> tuple[TrainingState, InitialWeights]:
    """Load a checkpoint of an earlier training; return its state and the weights that it started from.

    That checkpoint, and those that it needs, are linked into the run's own folder, if that is another.

    Args:
        point: Where an earlier training with the same recipe is resumed.
        own: Folder of the checkpoints of the training that resumes it.
        model: A model built as for the earlier training; it gets weights and random state.

    Raises:
        CheckpointError: It is corrupted.
    """
    folder = point.checkpoint.parent
    if folder == own:
        remove_later_checkpoints(point.checkpoint)
    else:
        # Linked first: the earlier training's folder may be pruned or deleted meanwhile.
        for name in {point.checkpoint.name, *point.state.needed_checkpoints}:
            copy_checkpoint(folder / name, own)
    checkpoint = own / point.checkpoint.name
    state, initial = reopen_checkpoint(checkpoint, model)
    try:
        _assign("random", _list_random_states(model), state.arrays)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"training can't be resumed from here: {error!r}", where=str(checkpoint)) from error
    return state, initial


def restore_optimizer(state: TrainingState, learner: keras.Model) -> None:
    """Restore the optimizer's variables in a model that is compiled as at the beginning of the stage.

    Raises:
        CheckpointError: The variables are those of another optimizer.
    """
    if not learner.optimizer.built:
        learner.optimizer.build(learner.trainable_variables)
    try:
        _assign("optimizer", learner.optimizer.variables, state.arrays)
    except (KeyError, ValueError) as error:
        where = "" if state.stage is None else f"stage {state.stage.name!r}"
        raise CheckpointError("the optimizer is not the one of the checkpoint", where=where) from error


def restore_weights(state: TrainingState, weights: KeptWeights) -> None:
    """Restore the weights that a stage was training, their averages, and its random state."""
    weights.restore_arrays(state.arrays, 0 if state.stage is None else state.stage.averaged_epochs)
    if any(name.startswith("stage_random/") for name in state.arrays):
        _assign("stage_random", _list_random_states(weights.trained), state.arrays)


def restore_sums(arrays: Mapping[str, NDArray[Any]], learner: keras.Model, tally: keras.metrics.Metric) -> None:
    """Restore the sums of an unfinished epoch's metrics, after Keras has set them to 0 at its beginning.

    Raises:
        CheckpointError: The metrics are others.
    """
    try:
        _assign("metric", _list_sums(learner, tally), arrays)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"the epoch can't be resumed: {error!r}") from error


def _list_sums(learner: keras.Model, tally: keras.metrics.Metric) -> list[keras.Variable]:
    """Return the variables that sum up the loss and the predictions of an epoch."""
    # Not by Keras's list of all metrics, which lacks those of a model that hasn't made its first step.
    (loss,) = (metric for metric in learner.metrics if metric.name == "loss")
    return [*loss.variables, *tally.variables]


def _list_random_states(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of a model that aren't weights: the state of its seed generators."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _assign(kind: str, variables: Sequence[keras.Variable], arrays: Mapping[str, NDArray[Any]]) -> None:
    # Names are positions: with another number of variables they would mean other variables.
    if sum(name.startswith(f"{kind}/") for name in arrays) != len(variables):
        raise ValueError(f"there are {len(variables)} variables of the kind {kind!r}")
    for index, variable in enumerate(variables):
        variable.assign(arrays[f"{kind}/{index}"])
