"""Entry point of a trial's process: trains as the trial's recipe says, and returns its validation metric.

A trial leaves a run folder whose recipe.yaml `imagetune fit` can repeat. What is the same for all trials, the audit of
the images and their splits, is in the search's folder once.
"""

from __future__ import annotations

import math
import signal
import time
import traceback
from dataclasses import replace
from pathlib import Path

from imagetune.errors import ImagetuneError, StoppedError
from imagetune.search.executors.protocol import Outcome, Task
from imagetune.search.records.trial import format_error_line
from imagetune.search.trial_process.folds import train_folds
from imagetune.search.trial_process.probe import run_probe
from imagetune.search.trial_process.probe_file import read_probe
from imagetune.search.trial_process.shared import Shared
from imagetune.search.trial_process.train import TrainingOutcome, TrialTraining, run_training
from imagetune.training.setup.stopping import StopRequest, listen_for_stop

_LONGEST_REASON = 300


def run_trial(shared: Shared, task: Task) -> Outcome:
    """Run a trial in this process, and return its outcome; nothing is raised.

    Every error makes a failed trial, with the traceback in ``debug.log`` of its folder. A signal makes a lost one,
    which may be run again.
    """
    began = time.monotonic()
    try:
        # Not SIGINT: a terminal sends Ctrl-C to all processes, and the main one decides whether trials stop.
        with listen_for_stop((signal.SIGTERM,)) as stop:
            outcome = _run(shared, task, stop)
    except StoppedError as error:
        outcome = Outcome("lost", error=format_error_line(error))
    except ImagetuneError as error:
        outcome = Outcome("failed", error=format_error_line(error))
    except Exception as error:  # noqa: BLE001 - a bug in one trial must not end the others
        traceback.print_exc()
        text = " ".join(f"{type(error).__name__}: {error}".split())
        outcome = Outcome("failed", error=f"internal: {text[:_LONGEST_REASON]}; see debug.log in its folder")
    return replace(outcome, seconds=time.monotonic() - began)


def _run(shared: Shared, task: Task, stop: StopRequest) -> Outcome:
    if task.probe:
        return run_probe(shared, task, stop)
    outcome = _train(shared, task, stop) if shared.config.folds is None else train_folds(shared, task, stop)
    if outcome.objective is None or not math.isfinite(outcome.objective):
        what = f"its best {shared.config.objective} is {outcome.objective}"
        return replace(outcome, status="failed", objective=None, error=f"diverged: {what}")
    return outcome


def _train(shared: Shared, task: Task, stop: StopRequest) -> Outcome:
    lesson = TrialTraining(
        recipe=task.recipe,
        data=shared.data,
        folder=task.folder,
        objective=shared.config.objective,
        until_epoch=task.epochs,
        continues=task.continues,
        compared=task.compared,
        continued=shared.continues_trials,
    )
    trained = run_training(lesson, stop=stop)
    objective = trained.objective if task.probed is None else _add_gain(trained, task.probed)
    outcome = Outcome("completed", objective, trained.epochs, trained.best_epoch)
    return replace(outcome, status="stopped") if trained.stopped else outcome


def _add_gain(trained: TrainingOutcome, probed: Path) -> float:
    """Return the cross-validated metric of a backbone's probe, plus what fine-tuning gained over the solved head.

    The probe's folds have several times the images of the validation split, on which backbones would differ by chance;
    the difference between two models on the same images has little of it. Without a solved head there is no such
    difference, and the metric is that of validation.
    """
    probe = read_probe(probed)
    if probe is None or trained.solved_objective is None:
        return trained.objective
    return float(probe["value"]) + trained.objective - trained.solved_objective
