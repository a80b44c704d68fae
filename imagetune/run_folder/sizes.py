"""How much of the disk a run will take, before it is trained."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_BYTES = 4
# The newest two checkpoints, the best one and the one that a stage has to beat, each with what has changed.
_CHECKPOINTS = 4
# Of each trained weight the optimizer keeps two more numbers (Adam's moments; others keep fewer).
_SLOTS = 2


@dataclass(frozen=True)
class RunSizes:
    """Sizes of a run's files in bytes, estimated from above.

    Attributes:
        model: model.keras and model/, which hold the weights once each; MLflow's store on this machine links them.
        checkpoints: The most that the checkpoints take while the run trains, and afterwards until they are pruned.
    """

    model: int
    checkpoints: int


def estimate_sizes(parameters: int, trained: Iterable[int]) -> RunSizes:
    """Return the sizes of a run's files.

    Args:
        parameters: Number of the model's parameters.
        trained: How many of them each stage trains by steps; 0 of a stage that is solved.
    """
    changed = _BYTES * min(parameters, sum(trained))
    # The weights at the start once, as all checkpoints share them.
    return RunSizes(2 * _BYTES * parameters, _BYTES * parameters + _CHECKPOINTS * (1 + _SLOTS) * changed)
