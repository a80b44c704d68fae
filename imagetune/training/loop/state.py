"""Where training stands: what one stage hands to the next, and what a checkpoint holds beside the weights.

`TrainingJob` says what to do and never changes; `TrainingState` says how far that has come. A stage adds its own
`StageState` when it begins, replaces the state after every step and epoch, and takes its part out again when it ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from imagetune.training.optimization.optimizer import Slots
from imagetune.training.optimization.schedules import PlateauState
from imagetune.training.setup.events import EpochRecord


@dataclass(frozen=True)
class BestEpoch:
    """The best epoch so far, and the checkpoint with its weights."""

    record: EpochRecord
    checkpoint: Path


@dataclass(frozen=True)
class StageState:
    """The state of the stage that is being trained.

    Attributes:
        name: Name of the stage.
        epochs_before: Finished epochs when it began, over all stages.
        steps_before: Passes when it began, over all stages.
        learning_rate: Its peak learning rate as a number: a range test isn't repeated after an interruption.
        features_cut: Block behind which the model is cut for cached features; ``off`` without: the choice may rest on
            a measurement, which would come out otherwise another time.
        features_reason: What is done about features, and why, in words.
        stalled_epochs: Epochs without improvement, which early stopping counts.
        plateau: State of the plateau schedule.
        averaged_epochs: Epochs in the average of SWA.
        finished: Whether the stage has had all its epochs, or was stopped early.
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


@dataclass(frozen=True)
class TrainingState:
    """Where training stands.

    Attributes:
        epoch: Finished epochs over all stages.
        step: Passes over all stages: optimizer steps where nothing is accumulated.
        best: The best epoch so far; None before the first.
        learned: Positions of the weights that stages have trained; empty before the first stage, which may yet train
            any.
        slots: What the optimizer remembered when the stage began. A checkpoint holds of it only the counts of updates,
            as the arrays hold the slots of now.
        stage: The stage that is being trained; None between stages.
        arrays: What going on needs beside these values and the weights, by name: variables of the optimizer, random
            state, averages. Only a checkpoint made at the end of an epoch has them: nobody goes on from another.
    """

    epoch: int = 0
    step: int = 0
    best: BestEpoch | None = None
    learned: frozenset[int] = frozenset()
    slots: Slots = field(default_factory=Slots)
    stage: StageState | None = None
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return all values but the arrays, as state.json holds them."""
        best = self.best
        return {
            "epoch": self.epoch,
            "step": self.step,
            "best": None if best is None else {"record": best.record.as_json(), "checkpoint": best.checkpoint.name},
            "learned": sorted(self.learned),
            "updates": sorted(self.slots.steps.items()),
            "stage": None if self.stage is None else asdict(self.stage),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], folder: Path) -> Self:
        """Return the state that `as_json` told of.

        Args:
            values: Content of state.json; what else it holds is passed over.
            folder: Where the best epoch's checkpoint lies.

        Raises:
            KeyError: A value is missing.
            TypeError: A value is of another type, or is not known.
        """
        best, stage = values["best"], values["stage"]
        return cls(
            epoch=values["epoch"],
            step=values["step"],
            best=None if best is None else BestEpoch(EpochRecord(**best["record"]), folder / best["checkpoint"]),
            learned=frozenset(values["learned"]),
            slots=Slots(steps=dict(values["updates"])),
            stage=None if stage is None else StageState(**{**stage, "plateau": PlateauState(**stage["plateau"])}),
        )
