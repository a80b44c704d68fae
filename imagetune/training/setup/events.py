"""What training tells whoever listens: the screen, the run folder, the tracker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class StageStarted:
    """What a stage begins with: a line of stages.jsonl.

    Attributes:
        name: Name of the stage.
        index: Position among the stages, from 0.
        stages: Number of stages.
        epochs: Its epochs, unless it is stopped early.
        first_epoch: Number of its first epoch, from 1 over all stages.
        steps_per_epoch: Passes an epoch: optimizer steps where nothing is accumulated.
        rates: Peak learning rate of each group of layers, input to output.
        trainable_parameters: Number of parameters that the stage trains.
        parameters: All parameters.
        found_rate: Learning rate of the head where the recipe says ``auto``: what the range test found.
        features: What is done about features of the frozen layers, and why.
    """

    name: str
    index: int
    stages: int
    epochs: int
    first_epoch: int
    steps_per_epoch: int
    rates: dict[str, float]
    trainable_parameters: int
    parameters: int
    found_rate: float | None = None
    features: str = ""


@dataclass(frozen=True)
class FeaturesDone:
    """How many of a stage's features are there.

    Attributes:
        stage: Name of the stage.
        done: Features that are computed or were stored.
        count: All features: images times augmented copies.
    """

    stage: str
    done: int
    count: int


@dataclass(frozen=True)
class StepDone:
    """A pass through the model and back is done.

    Attributes:
        stage: Name of the stage.
        epoch: Number of the epoch, from 1 over all stages.
        step: Number of the pass, from 1 within the epoch.
        steps_per_epoch: Passes an epoch.
        loss: Mean of the epoch so far.
    """

    stage: str
    epoch: int
    step: int
    steps_per_epoch: int
    loss: float


@dataclass(frozen=True)
class EpochRecord:
    """An epoch's metrics: a line of metrics.jsonl.

    Attributes:
        stage: Name of the stage.
        epoch: Number from 1 over all stages.
        step: Passes so far over all stages; optimizer steps where nothing is accumulated.
        train: loss, accuracy, precision, recall and f1 (macro) as seen while learning, augmented and with dropout.
        val: The same of the validation images after the epoch; empty without validation images.
        learning_rate: Of the head at the last step.
        images_per_second: Training images a second, validation and checkpoint left out.
    """

    stage: str
    epoch: int
    step: int
    train: dict[str, float]
    val: dict[str, float]
    learning_rate: float
    images_per_second: float

    def as_json(self) -> dict[str, Any]:
        """Return the line of metrics.jsonl."""
        return dict(self.__dict__)

    def metric(self, metric: str) -> float:
        """Return the metric that selection looks at: validation's, or training's where there is no validation."""
        return (self.val or self.train)[metric]


class Listener(Protocol):
    """Hears of progress. Implementations must be quick and must not raise."""

    def stage_started(self, event: StageStarted) -> None:
        """Hear that a stage begins."""

    def features_done(self, event: FeaturesDone) -> None:
        """Hear how far a stage's features are."""

    def step_done(self, event: StepDone) -> None:
        """Hear that a step is done."""

    def epoch_done(self, record: EpochRecord) -> None:
        """Hear that an epoch is done and its checkpoint committed."""


class SilentListener:
    """A listener for work whose progress nobody watches."""

    def stage_started(self, event: StageStarted) -> None:
        """Ignore it."""

    def features_done(self, event: FeaturesDone) -> None:
        """Ignore it."""

    def step_done(self, event: StepDone) -> None:
        """Ignore it."""

    def epoch_done(self, record: EpochRecord) -> None:
        """Ignore it."""
