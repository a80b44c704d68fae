"""Training of a trial, or of one of its folds, in a run folder of its own."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from imagetune.core.files import read_json_lines, write_json
from imagetune.core.messages import say_nothing
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.schema import Recipe
from imagetune.recipe.used_plugins import find_used_plugins
from imagetune.run_folder.folder import RunFolder, write_recipe
from imagetune.run_folder.lock import build_lock_document
from imagetune.runs.prepare import Data, Training, prepare_training
from imagetune.runs.run import Run, start_run
from imagetune.search.trial_process.early_stop import MedianStopping
from imagetune.training.loop.checkpoints import ResumePoint, require_resume_point
from imagetune.training.loop.fit import train
from imagetune.training.setup.stopping import StopRequest


@dataclass(frozen=True)
class TrialTraining:
    """One training to run: recipe, images, run folder, and where it starts and ends.

    Attributes:
        recipe: Complete, validated recipe.
        data: Images of the recipe; the test split stays closed.
        folder: The run folder to create.
        objective: Name of the validation metric.
        until_epoch: The last epoch, counted over all stages; None for all of them.
        continues: Run folder of the training that this one continues.
        compared: Run folders of earlier trials for median stopping.
        continued: Whether a later trial may go on from its checkpoints; otherwise they are removed at its end.
    """

    recipe: Recipe
    data: Data
    folder: Path
    objective: str
    until_epoch: int | None = None
    continues: Path | None = None
    compared: tuple[Path, ...] = ()
    continued: bool = False


@dataclass(frozen=True)
class TrainingOutcome:
    """Result of a training.

    Attributes:
        objective: Validation metric of the epoch whose weights are kept, which may be one of a lower rung.
        best_epoch: That epoch, counted from 1 over all stages.
        epochs: How many epochs were trained here, without those of a lower rung.
        stopped: Whether median stopping has ended it.
        solved_objective: The metric of the solved head that training started from; None where it has none.
    """

    objective: float
    best_epoch: int
    epochs: int
    stopped: bool
    solved_objective: float | None = None


def run_training(lesson: TrialTraining, *, stop: StopRequest) -> TrainingOutcome:
    """Run a training in its run folder, whose recipe.yaml `imagetune fit` can repeat, and return its result.

    Raises:
        ImagetuneError: As `imagetune.training.loop.fit.train`; CheckpointError where the training to continue is
            corrupted.
    """
    try:
        with start_run(lesson.recipe, lesson.folder, say=say_nothing, pages=False) as run:
            return _train(lesson, run, stop)
    finally:
        # The refit trains anew, and an interrupted trial begins again: six trials of a 14 MB model left 755 MB.
        if not lesson.continued:
            shutil.rmtree(RunFolder(lesson.folder).checkpoints, ignore_errors=True)


def _train(lesson: TrialTraining, run: Run, stop: StopRequest) -> TrainingOutcome:
    folder, recorder = run.folder, run.recorder
    earlier = None if lesson.continues is None else RunFolder(lesson.continues)
    point: ResumePoint | None = None
    if earlier is not None:
        # Before the training: its epochs are appended to those of the lower rung.
        point = require_resume_point(earlier.checkpoints)
        recorder.go_on_from(earlier, point.state)
    # Lines that came from the lower rung aren't epochs of this trial.
    before = len(read_json_lines(folder.metrics))
    recipe = lesson.recipe if earlier is None else _with_batch_size_of(earlier, lesson.recipe)
    training = prepare_training(recipe, lesson.data, say=say_nothing, stop=stop, workers="unless_features_are_kept")
    _write_inputs(folder, training, lesson.recipe)

    def beat() -> None:
        recorder.beat()
        stop.check()

    median = MedianStopping(lesson.compared, lesson.objective, training.recipe.train.stages, beat)
    kept = train(
        replace(training.job, folder=folder.checkpoints, listener=recorder),
        start_from=point,
        until_epoch=lesson.until_epoch,
        stop_when=median,
    )
    lines = read_json_lines(folder.metrics)
    solved = next((line["val"][lesson.objective] for line in lines if line.get("solved")), None)
    return TrainingOutcome(kept.val[lesson.objective], kept.epoch, len(lines) - before, median.stopped, solved)


def _with_batch_size_of(earlier: RunFolder, recipe: Recipe) -> Recipe:
    """Return the recipe with the lower rung's batch size where it is ``auto``: another would change the training."""
    if recipe.train.batch_size != "auto":
        return recipe
    size = load_recipe(earlier.recipe).recipe.train.batch_size
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"batch_size": size})})


def _write_inputs(folder: RunFolder, training: Training, before: Recipe) -> None:
    """Write the training's recipe and lock.json; the hashes of its images are in the search's folder."""
    # What was `auto` is settled now, and `imagetune fit` of the file must repeat it.
    if training.recipe != before:
        write_recipe(training.recipe, folder.recipe)
    write_json(
        folder.lock,
        build_lock_document(
            seed=training.recipe.seed,
            weights=asdict(training.weights),
            # The search's lock.json has them once for all trials.
            images={},
            plugins=find_used_plugins(training.recipe),
        ),
    )
