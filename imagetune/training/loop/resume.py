"""Going on from the end of an epoch as if training had never stopped.

Beside the weights of the checkpoint that takes the values of `TrainingState` and arrays: optimizer variables, counts
of updates among them; the random state of dropout; weights that are being averaged and their averages. Order,
augmentation and blending of images follow from (seed, epoch, index) alone and need nothing.
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
    """Return copies of the arrays that going on needs and that the weights of a checkpoint don't hold, by name.

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


def reopen_training(folder: Path, own: Path, model: keras.Model) -> tuple[TrainingState, InitialWeights]:
    """Put the newest checkpoint of an earlier training into ``model`` and return where that stood, and began.

    That checkpoint, and the best one so far, get a second name among the run's own.

    Args:
        folder: Checkpoints of a training of the same recipe that ended with an epoch.
        own: Folder of the checkpoints of the training that goes on.
        model: Built as for the earlier one; it gets weights and random state.

    Raises:
        CheckpointError: There is none, it is corrupted, or nobody can go on from it.
    """
    found = list_checkpoints(folder)
    if not found:
        raise CheckpointError("there is no checkpoint to go on from", where=str(folder))
    # Under a name of its own: the earlier training's folder may be pruned or deleted meanwhile.
    newest = copy_checkpoint(found[-1], own)
    state, initial = reopen_checkpoint(newest, model)
    try:
        _assign("random", _random_states(model), state.arrays)
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"training can't go on from here: {error!r}", where=str(found[-1])) from error
    if state.best is not None and state.best.checkpoint != newest:
        copy_checkpoint(folder / state.best.checkpoint.name, own)
    return state, initial


def restore_optimizer(state: TrainingState, learner: keras.Model) -> None:
    """Give the optimizer of a model, compiled as at the beginning of the stage, the variables that it had.

    Raises:
        CheckpointError: The optimizer is another one.
    """
    if not learner.optimizer.built:
        learner.optimizer.build(learner.trainable_variables)
    try:
        _assign("optimizer", learner.optimizer.variables, state.arrays)
    except (KeyError, ValueError) as error:
        where = "" if state.stage is None else f"stage {state.stage.name!r}"
        raise CheckpointError("the optimizer is not the one that was kept", where=where) from error


def restore_weights(state: TrainingState, weights: KeptWeights) -> None:
    """Give a stage the weights that it learned with, their averages, and its random state."""
    weights.put_back(state.arrays, 0 if state.stage is None else state.stage.averaged_epochs)
    if any(name.startswith("stage_random/") for name in state.arrays):
        _assign("stage_random", _random_states(weights.trained), state.arrays)


def _random_states(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that are no weights: the state of seed generators."""
    weights = {id(weight) for weight in model.weights}
    return [variable for variable in model.variables if id(variable) not in weights]


def _assign(kind: str, variables: Sequence[keras.Variable], arrays: Mapping[str, NDArray[Any]]) -> None:
    # Names are positions: with fewer or more variables they would mean others.
    if sum(name.startswith(f"{kind}/") for name in arrays) != len(variables):
        raise ValueError(f"there are {len(variables)} variables of the kind {kind!r}")
    for index, variable in enumerate(variables):
        variable.assign(arrays[f"{kind}/{index}"])
