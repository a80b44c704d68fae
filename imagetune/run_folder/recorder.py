"""The recorder of a run: a training listener that writes progress, status and errors into the run folder."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imagetune.core.files import read_json_lines, write_text
from imagetune.core.secrets import redact_text
from imagetune.errors import CheckpointError, ImagetuneError, StoppedError
from imagetune.run_folder.folder import RunFolder, State, suggest_continuation
from imagetune.training.loop.state import TrainingState
from imagetune.training.setup.events import EpochRecord, FeaturesDone, Listener, StageJudged, StageStarted, StepDone

# Seconds between two writes of status.json: often enough for whoever watches, seldom enough for network disks.
STATUS_SECONDS = 1.0


@contextmanager
def record_failure(folder: RunFolder) -> Iterator[None]:
    """Record an exception that ends the block in status.json; for the time before there is a recorder."""
    try:
        yield
    except BaseException as error:
        # BaseException, as Ctrl-C is no Exception.
        _add_continuation(folder, error)
        # What can't be written must not hide why the run ended.
        with suppress(OSError, ImagetuneError):
            folder.write_status(get_failure_state(error), error=str(error) or type(error).__name__)
        raise


def _add_continuation(folder: RunFolder, error: BaseException) -> None:
    """Say in the message of a stop which run it was, and how to go on with it.

    What contains a run, such as a search, says it after that run, and so has the last word.
    """
    if isinstance(error, StoppedError):
        error.where, error.hint = str(folder.path), suggest_continuation(folder)


def get_failure_state(error: BaseException) -> State:
    """Return the final state of a run that ended with ``error``: killed where it was stopped, failed otherwise."""
    return "killed" if isinstance(error, KeyboardInterrupt | StoppedError) else "failed"


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return read_json_lines(path) if path.is_file() else []


def _cut_stages(lines: Sequence[Mapping[str, Any]], state: TrainingState) -> list[Mapping[str, Any]]:
    """Return the lines of stages.jsonl up to the beginning of the stage that a training is in.

    What follows comes again: this stage's judgement, and the beginnings of later ones.
    """
    if state.stage is None:
        return []
    begins = [line.get("name") == state.stage.name and "judged" not in line for line in lines]
    return list(lines[: begins.index(True) + 1]) if any(begins) else []


class RunRecorder:
    """A training listener that writes a run's progress to its folder, then passes it on.

    Args:
        folder: The run folder.
        listener: Receives everything afterwards, such as the screen.
        pass_on: Called with each epoch once it is written, if it is given.
    """

    def __init__(
        self, folder: RunFolder, listener: Listener, pass_on: Callable[[EpochRecord], None] | None = None
    ) -> None:
        self.folder = folder
        self.listener = listener
        self.pass_on = pass_on
        self.stage, self.epoch, self.step = "", 0, 0
        self._steps_before_epoch = 0
        self._last_write = 0.0
        self._known_stages: frozenset[str] = frozenset()

    def go_on_from(self, earlier: RunFolder, state: TrainingState) -> None:
        """Copy the epochs and stages up to the checkpoint from which an earlier training is resumed.

        Args:
            earlier: Run folder of the earlier training; it may be this one.
            state: The checkpoint's state.

        Raises:
            CheckpointError: They can't be read.
        """
        try:
            epochs = [line for line in _read_lines(earlier.metrics) if line["epoch"] <= state.epoch]
            stages = _cut_stages(_read_lines(earlier.stages), state)
            self._known_stages = frozenset(stage["name"] for stage in stages)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"its epochs can't be read: {error!r}", where=str(earlier.path)) from error
        # A kill between the checkpoint and the line leaves the line out.
        if state.last is not None and (not epochs or epochs[-1]["epoch"] < state.last.epoch):
            epochs.append(state.last.as_json())
        self._steps_before_epoch = 0 if state.last is None else state.last.step
        self.stage = "" if state.stage is None else state.stage.name
        self.epoch, self.step = state.epoch, state.step
        for path, lines in ((self.folder.metrics, epochs), (self.folder.stages, stages)):
            # Written whole, so that the folder shows one training from its first epoch.
            write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def stage_started(self, event: StageStarted) -> None:
        """Write the stage into status.json, and append its settings to stages.jsonl."""
        self.stage = event.name
        # A training that continues an earlier one begins its stage again, which is listed already.
        if event.name not in self._known_stages:
            self.folder.append_stage(asdict(event))
        self._write()
        self.listener.stage_started(event)

    def stage_judged(self, event: StageJudged) -> None:
        """Append what the stage has gained, and whether it is kept, to stages.jsonl."""
        self.folder.append_stage({"name": event.name, "judged": asdict(event)})
        self.listener.stage_judged(event)

    def features_done(self, event: FeaturesDone) -> None:
        """Refresh status.json: computing features takes minutes without a step."""
        self.beat()
        self.listener.features_done(event)

    def step_done(self, event: StepDone) -> None:
        """Write the step into status.json, at most once a second."""
        self.epoch, self.step = event.epoch, self._steps_before_epoch + event.step
        self.beat()
        self.listener.step_done(event)

    def beat(self) -> None:
        """Write status.json again, at most once a second, so that its time shows that the run is alive."""
        if time.monotonic() - self._last_write > STATUS_SECONDS:
            self._write()

    def epoch_done(self, record: EpochRecord) -> None:
        """Append the epoch's metrics to metrics.jsonl."""
        self.epoch, self.step = record.epoch, record.step
        self._steps_before_epoch = record.step
        # Before anyone is told: the copy for MLflow reads the file and not the record.
        self.folder.append_metrics(record.as_json())
        self._write()
        if self.pass_on is not None:
            self.pass_on(record)
        self.listener.epoch_done(record)

    def end(self, state: State, error: BaseException | None = None) -> None:
        """Write the final status, then the traceback of an error to debug.log, as far as the disk takes them.

        Raises:
            ResourceError: There is no error to record, and the status can't be written.
        """
        if error is None:
            self._write(state)
            return
        _add_continuation(self.folder, error)
        # A full disk may be what has ended the run: it must not hide that, nor keep the log from being tried.
        with suppress(OSError, ImagetuneError):
            self._write(state, redact_text(str(error)) or type(error).__name__)
        with suppress(OSError):
            log = redact_text("".join(traceback.format_exception(error)))
            self.folder.debug_log.write_text(log, encoding="utf-8", errors="backslashreplace")

    def _write(self, state: State = "running", error: str | None = None) -> None:
        self._last_write = time.monotonic()
        self.folder.write_status(state, stage=self.stage, epoch=self.epoch, step=self.step, error=error)
