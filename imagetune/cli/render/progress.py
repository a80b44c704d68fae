"""Progress of a training on the screen: a progress bar on a terminal, and a line for each epoch anywhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from imagetune.cli.render.console import keep_going_without_output
from imagetune.cli.render.lines import LABEL_WIDTH, print_above_bar
from imagetune.core.text import format_count, format_duration
from imagetune.training.setup.events import EpochRecord, FeaturesDone, StageJudged, StageStarted, StepDone

# Steps that are timed, after the first one, and from how many seconds on a stage's time is worth a line.
_TIMED_STEPS, _WORTH_SAYING = 3, 20


class Screen:
    """A training listener that prints progress to standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.4f}"),
            console=self.console,
            # The bar goes at the end: the lines of the epochs say all that it has shown.
            transient=True,
            disable=not _can_move(self.console),
        )
        self._task: TaskID | None = None
        self._first_epoch = 1
        self._last_epoch = 0
        self._began = time.monotonic()
        self._times: list[float] = []

    @contextmanager
    def shown(self) -> Iterator[Screen]:
        """Show the progress bar during the block, which goes on whether or not its words can be shown."""
        with keep_going_without_output(), self._progress:
            yield self

    def say(self, topic: str, text: str, /) -> None:
        """Print a message above the progress bar."""
        print_above_bar(self.console, topic, text)

    def stage_started(self, event: StageStarted) -> None:
        """Print the stage and start its progress bar."""
        steps = f"up to {format_count(event.epochs, 'epoch')} of {format_count(event.steps_per_epoch, 'step')}"
        self.say(
            f"stage {event.index + 1}/{event.stages}",
            f"{event.name}: {event.trainable_parameters:,} of {event.parameters:,} parameters are trainable, "
            f"{'solved by L-BFGS' if event.solved else steps}",
        )
        if event.features:
            self.say("features", event.features)
        if event.found_learning_rate is not None:
            self.say("range test", f"learning rate {event.found_learning_rate:.2g}")
        if self._task is not None:
            # One bar at a time: a finished stage has its lines above.
            self._progress.remove_task(self._task)
        self._began, self._times = time.monotonic(), []
        self._first_epoch = event.first_epoch
        self._last_epoch = event.first_epoch + event.epochs - 1
        self._task = self._progress.add_task(event.name, total=event.epochs * event.steps_per_epoch, loss=0.0)

    def stage_judged(self, event: StageJudged) -> None:
        """Print whether the stage is kept, what it has gained, and what it took where that was in vain."""
        took = f"; it took {format_duration(time.monotonic() - self._began)}"
        if event.gain is None:
            self.say("stage", f"{event.name} is dropped: no epoch of it was better than the best one before{took}")
            return
        gained = f"validation loss {-event.gain:+.4f}, standard error {event.standard_error:.4f}"
        kept = "is kept" if event.kept else "is dropped: it doesn't clearly beat the weights that it started from"
        self.say("stage", f"{event.name} {kept} ({gained}){'' if event.kept else took}")

    def features_done(self, event: FeaturesDone) -> None:
        """Show the number of computed features in the progress bar."""
        if self._task is not None:
            description = f"{event.stage} features {event.done:,}/{event.count:,}"
            self._progress.update(self._task, description=description)

    def step_done(self, event: StepDone) -> None:
        """Move the progress bar, and early in a long stage print how long it will take."""
        self._estimate(event)
        if self._task is not None:
            done = (event.epoch - self._first_epoch) * event.steps_per_epoch + event.step
            description = f"{event.stage} epoch {event.epoch}/{self._last_epoch}"
            self._progress.update(self._task, completed=done, description=description, loss=event.loss)

    def _estimate(self, event: StepDone) -> None:
        """Print how long all steps of the stage will take, by those after the first one, which compiles."""
        if len(self._times) > _TIMED_STEPS:
            return
        self._times.append(time.monotonic())
        if len(self._times) <= _TIMED_STEPS:
            return
        each = (self._times[-1] - self._times[0]) / _TIMED_STEPS
        epochs = self._last_epoch - event.epoch + 1
        # A run that is gone on with begins within an epoch.
        done = event.step - len(self._times)
        seconds = each * (event.steps_per_epoch * epochs - done)
        if seconds >= _WORTH_SAYING:
            length = f"about {format_duration(seconds)} for up to {format_count(epochs, 'epoch')}"
            self.say("time", f"{event.stage}: {length}, without validation")

    def epoch_done(self, record: EpochRecord) -> None:
        """Print the epoch's metrics."""
        sides = [
            f"{name} {_metrics(values)}" for name, values in (("train", record.train), ("val", record.val)) if values
        ]
        text = f"{'  |  '.join(sides)}  |  {_describe_steps(record)}"
        if self.console.is_terminal and LABEL_WIDTH + len(text) > self.console.width:
            text = _shorten_epoch(record)
        self.say(f"epoch {record.epoch:>3}", text)


def _can_move(console: Console) -> bool:
    """Return whether a bar can move: on a terminal, and in a notebook that has widgets."""
    return console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)


def _describe_steps(record: EpochRecord) -> str:
    """Return how the weights of an epoch came about: by steps of a learning rate, or by solving."""
    if record.learning_rate is not None:
        return f"learning rate {record.learning_rate:.2e}  {record.images_per_second:.0f} images/s"
    loss = record.solved.get("cross_validated_loss")
    chosen = "" if loss is None else f", cross-validated loss {loss:.4f}"
    return f"solved: C {record.solved['strength']:g}{chosen}"


def _shorten_epoch(record: EpochRecord) -> str:
    """Return what decides of an epoch, in one line of a terminal of 80 columns: the losses and the first metric."""
    sides = [(name, values) for name, values in (("train", record.train), ("val", record.val)) if values]
    return "  ".join(f"{name} {_metrics(values, most=1)}" for name, values in sides)


def _metrics(values: dict[str, float], *, most: int = 4) -> str:
    # Abbreviations of the names that tables have: an epoch is one line of 80 columns.
    names = {"accuracy": "accuracy", "f1": "F1", "mae": "MAE", "r2": "R2"}
    shown = [name for name in names if name in values][:most]
    return " ".join([f"loss {values['loss']:.4f}", *(f"{names[name]} {values[name]:.3f}" for name in shown)])
