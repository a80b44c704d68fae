"""Events of training for its listeners: the screen, the run folder and the trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol


@dataclass(frozen=True)
class StageStarted:
    """Event at the start of a stage: a line of stages.jsonl.

    Attributes:
        name: Name of the stage.
        index: Position among the stages, from 0.
        stages: Number of stages.
        epochs: Number of its epochs, unless it is stopped early.
        first_epoch: Number of its first epoch, counted from 1 over all stages.
        steps_per_epoch: Passes in an epoch: optimizer steps where gradients aren't accumulated.
        learning_rates: Peak learning rate of each group of layers, input to output; empty where the head is solved.
        trainable_parameters: Number of trainable parameters.
        parameters: Number of all parameters.
        found_learning_rate: Learning rate of the head that the range test found, where the recipe says ``auto``.
        features: Whether features of frozen layers are cached, and why, as a clause.
        solved: Whether the head is solved instead of trained.
    """

    name: str
    index: int
    stages: int
    epochs: int
    first_epoch: int
    steps_per_epoch: int
    learning_rates: dict[str, float]
    trainable_parameters: int
    parameters: int
    found_learning_rate: float | None = None
    features: str = ""
    solved: bool = False


@dataclass(frozen=True)
class StageJudged:
    """Event at the end of a stage that has to beat the weights that it started from, or that brought no better ones.

    Attributes:
        name: Name of the stage.
        kept: Whether its best epoch is kept; otherwise the weights from before the stage are.
        gain: Mean reduction of the validation loss by its best epoch; negative where it is worse. None where not one
            epoch of it was better than the best one before, by the metric that chooses epochs.
        standard_error: Standard error of that mean, over the validation images.
        required: Number of standard errors that the gain has to exceed.
    """

    name: str
    kept: bool
    gain: float | None
    standard_error: float = 0.0
    required: float = 0.0


@dataclass(frozen=True)
class FeaturesDone:
    """Event while a stage's features are computed.

    Attributes:
        stage: Name of the stage.
        done: Number of features that are computed or were stored.
        count: Number of all features: images times augmented copies.
    """

    stage: str
    done: int
    count: int


@dataclass(frozen=True)
class StepDone:
    """Event after a training pass: forward, backward and maybe an update.

    Attributes:
        stage: Name of the stage.
        epoch: Number of the epoch, counted from 1 over all stages.
        step: Number of the pass, counted from 1 within the epoch.
        steps_per_epoch: Number of passes in an epoch.
        loss: Mean loss of the epoch so far.
    """

    stage: str
    epoch: int
    step: int
    steps_per_epoch: int
    loss: float


@dataclass(frozen=True)
class EpochRecord:
    """Metrics of an epoch: a line of metrics.jsonl.

    Attributes:
        stage: Name of the stage.
        epoch: Number of the epoch, counted from 1 over all stages.
        step: Number of passes so far over all stages; optimizer steps where gradients aren't accumulated.
        train: Training metrics by name, measured while training: on augmented images and with dropout. Of a solved
            head: of the images as they are.
        val: Validation metrics by name, after the epoch; empty without validation images.
        learning_rate: Learning rate of the head at the last step; None where the head was solved.
        images_per_second: Training images per second, without validation and checkpoint.
        solved: Of a solved head: ``strength`` (C, the inverse of the penalty), ``cross_validated_loss`` by which it was
            chosen, and ``rows`` that the head was solved on.
    """

    stage: str
    epoch: int
    step: int
    train: dict[str, float]
    val: dict[str, float]
    learning_rate: float | None
    images_per_second: float
    solved: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the record as a line of metrics.jsonl."""
        return {key: value for key, value in self.__dict__.items() if key != "solved" or value}

    def metric(self, metric: str) -> float:
        """Return the value of a metric for model selection: on validation, or on training images without validation."""
        return (self.val or self.train)[metric]


def build_epoch_record(values: Mapping[str, Any]) -> EpochRecord:
    """Return the record of a line of metrics.jsonl, without what another version has added to it."""
    known = {each.name for each in fields(EpochRecord)}
    return EpochRecord(**{name: value for name, value in values.items() if name in known})


class Listener(Protocol):
    """Receives the events of training; implementations must be quick and must not raise."""

    def stage_started(self, event: StageStarted) -> None:
        """Receive the event at the start of a stage."""

    def stage_judged(self, event: StageJudged) -> None:
        """Receive the event at the end of a stage that has to beat the weights that it started from."""

    def features_done(self, event: FeaturesDone) -> None:
        """Receive the progress of a stage's features."""

    def step_done(self, event: StepDone) -> None:
        """Receive the event after a pass."""

    def epoch_done(self, record: EpochRecord) -> None:
        """Receive the record of an epoch whose checkpoint is committed."""


class SilentListener:
    """Listener that ignores all events."""

    def stage_started(self, event: StageStarted) -> None:
        """Ignore the event."""

    def stage_judged(self, event: StageJudged) -> None:
        """Ignore the event."""

    def features_done(self, event: FeaturesDone) -> None:
        """Ignore the event."""

    def step_done(self, event: StepDone) -> None:
        """Ignore the event."""

    def epoch_done(self, record: EpochRecord) -> None:
        """Ignore the event."""
