"""Training state: what one stage hands to the next, and what a checkpoint holds beside the weights.

`TrainingJob` says what to do and never changes; `TrainingState` is the progress. A stage adds its own `StageState` when
it begins, replaces the state after every step and epoch, and removes its own when it ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from imagetune.recipe.metrics import is_lower_better
from imagetune.recipe.sections.train import EarlyStoppingConfig
from imagetune.training.optimization.optimizer import Slots
from imagetune.training.optimization.schedules import PlateauState
from imagetune.training.setup.events import EpochRecord

_CHECKPOINT = re.compile(r"step-\d{8,12}")


@dataclass(frozen=True)
class BestEpoch:
    """Record of the best epoch so far, and the checkpoint with its weights."""

    record: EpochRecord
    checkpoint: Path


def improves(record: EpochRecord, best: EpochRecord, watched: EarlyStoppingConfig) -> bool:
    """Return whether an epoch is better than the best one so far, by the watched metric and more than its margin."""
    gain = record.metric(watched.metric) - best.metric(watched.metric)
    return (-gain if is_lower_better(watched.metric) else gain) > watched.min_delta


@dataclass(frozen=True)
class StageState:
    """State of the stage that is being trained.

    Attributes:
        name: Name of the stage.
        epochs_before: Number of finished epochs when it began, over all stages.
        steps_before: Number of passes when it began, over all stages.
        learning_rate: Its peak learning rate as a number: a range test isn't repeated after an interruption.
        features_cut: Block after which the model is split for cached features, ``off`` without; kept because the choice
            may rest on a measurement, which could come out differently another time.
        features_reason: Whether features are cached, and why, as a clause.
        stalled_epochs: Number of epochs without improvement, for early stopping.
        plateau: State of the plateau schedule.
        averaged_epochs: Number of epochs in the average of SWA.
        finished: Whether the stage has had all its epochs, or was stopped early.
        baseline: Name of the checkpoint with the weights that it has to beat; empty where any improvement counts.
    """

    name: str
    epochs_before: int
    steps_before: int
    learning_rate: float
    features_cut: str = "off"
    features_reason: str = ""
    stalled_epochs: int = 0
    plateau: PlateauState = field(default_factory=PlateauState)
    averaged_epochs: int = 0
    finished: bool = False
    baseline: str = ""


@dataclass(frozen=True)
class TrainingState:
    """State of training over all stages.

    Attributes:
        epoch: Number of finished epochs over all stages.
        step: Number of passes over all stages: optimizer steps where gradients aren't accumulated.
        best: The best epoch so far; None before the first.
        last: Record of the last finished epoch; None before the first.
        learned: Positions of the weights that stages have trained; empty before the first stage, which may train any.
        slots: Optimizer slots when the stage began. A checkpoint holds only their numbers of updates, as the arrays
            hold the current slots.
        stage: The stage that is being trained; None between stages.
        arrays: Arrays that resuming needs beside these values and the weights, by name: variables of the optimizer,
            random state, averages, in the middle of an epoch also the sums of its metrics. A checkpoint without them
            can't be resumed from; that of the weights before the first step is one.
    """

    epoch: int = 0
    step: int = 0
    best: BestEpoch | None = None
    last: EpochRecord | None = None
    learned: frozenset[int] = frozenset()
    slots: Slots = field(default_factory=Slots)
    stage: StageState | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def needed_checkpoints(self) -> frozenset[str]:
        """Names of the checkpoints that resuming needs beside this one: the best, and one that a stage has to beat."""
        best = "" if self.best is None else self.best.checkpoint.name
        return frozenset({best, "" if self.stage is None else self.stage.baseline} - {""})

    def as_json(self) -> dict[str, Any]:
        """Return the state without the arrays, as state.json holds it."""
        best = self.best
        return {
            "epoch": self.epoch,
            "step": self.step,
            "best": None if best is None else {"record": best.record.as_json(), "checkpoint": best.checkpoint.name},
            "last": None if self.last is None else self.last.as_json(),
            "learned": sorted(self.learned),
            "updates": sorted(self.slots.steps.items()),
            "stage": None if self.stage is None else asdict(self.stage),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> Self:
        """Return the state that `as_json` wrote.

        Args:
            values: Content of state.json; other keys are ignored.
            folder: Folder of the best epoch's checkpoint.

        Raises:
            KeyError: A value is missing.
            TypeError, ValueError: A value is of another type or unknown, or names no checkpoint.
        """
        best, last, stage = values["best"], values["last"], values["stage"]
        for count in (values["epoch"], values["step"], *values["learned"]):
            if not isinstance(count, int) or not 0 <= count < 2**53:
                raise TypeError(f"{count!r} is no number of epochs, steps or weights")
        # A name such as ../../ would read and link files of another folder.
        named = {"" if best is None else best["checkpoint"], "" if stage is None else stage["baseline"]} - {""}
        if unknown := [name for name in named if not _CHECKPOINT.fullmatch(name)]:
            raise ValueError(f"{unknown[0]!r} is no checkpoint")
        return cls(
            epoch=values["epoch"],
            step=values["step"],
            best=None if best is None else BestEpoch(EpochRecord(**best["record"]), folder / best["checkpoint"]),
            last=None if last is None else EpochRecord(**last),
            learned=frozenset(values["learned"]),
            slots=Slots(steps=dict(values["updates"])),
            stage=None if stage is None else StageState(**{**stage, "plateau": PlateauState(**stage["plateau"])}),
        )
