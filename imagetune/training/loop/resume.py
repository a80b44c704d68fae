"""Resuming training from the end of an epoch, exactly as if it had never stopped.

Beside the weights of the checkpoint that needs the values of `TrainingState` and arrays: the optimizer's variables with
its number of updates, the random state of dropout, and weights that are being averaged with their averages. Order,
augmentation and mixing of images follow from (seed, epoch, index) alone and need nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.errors import CheckpointError
from imagetune.training.loop.checkpoints import InitialWeights, copy_checkpoint, list_checkpoints, reopen_checkpoint
from imagetune.training.loop.state import TrainingState
from imagetune.training.loop.weight_averaging import KeptWeights


def collect_arrays(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, weights: KeptWeights
) -> dict[str, NDArray[Any]]:
    """Return copies of the arrays that resuming needs beside the weights of a checkpoint, by name.

    Args:
        model: The run's model.
        optimizer: The optimizer of the stage.
        weights: Weights that the stage trains and keeps.
    """
    found = {f"optimizer/{index}": variable for index, variable in enumerate(optimizer.variables)}
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
    # A checkpoint without arrays is one in the middle of an epoch.
    return {**arrays, "solved": np.ones(1)}


def reopen_training(folder: Path, own: Path, model: keras.Model) -> tuple[TrainingState, InitialWeights]:
    """Load the newest checkpoint of an earlier training; return its state and the weights that it started from.

    That checkpoint, and the best one so far, are linked into the run's own folder.

    Args:
        folder: Folder of the checkpoints of an earlier training with the same recipe.
        own: Folder of the checkpoints of the training that resumes it.
        model: A model built as for the earlier training; it gets weights and random state.

    Raises:
        CheckpointError: There is none, it is corrupted, or it can't be resumed from.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError("there is no checkpoint to resume from", where=str(folder))
    # Linked first: the earlier training's folder may be pruned or deleted meanwhile.
    newest = copy_checkpoint(found[-1], own)
    state, initial = reopen_checkpoint(newest, model)
    try:
        _assign("random", _list_random_states(model), state.arrays)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"training can't be resumed from here: {error!r}", where=str(found[-1])) from error
    if state.best is not None and state.best.checkpoint != newest:
        copy_checkpoint(folder / state.best.checkpoint.name, own)
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
