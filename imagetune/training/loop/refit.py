"""Refit: a solved head is solved once more on training and validation images together, when all is chosen."""

from __future__ import annotations

from dataclasses import replace

from imagetune.errors import ImagetuneError
from imagetune.model.trainable import set_trainable
from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.training.feature_cache.features import compute_solver_features
from imagetune.training.feature_cache.plan import plan_features
from imagetune.training.head_solver.rows import build_problem
from imagetune.training.loop.solve_stage import solve_into_model
from imagetune.training.setup.events import EpochRecord
from imagetune.training.setup.job import TrainingJob, build_objective, build_targets


def find_refit_stage(train: TrainConfig, best: EpochRecord, *, validated: bool) -> StageConfig | None:
    """Return the stage whose head is to be solved again on all images; None where there is none.

    Args:
        train: Settings of the training.
        best: The epoch whose weights the model has.
        validated: Whether there are validation images.

    Returns:
        The best epoch's stage, if it was solved on a backbone that no earlier stage has trained: a backbone that was
        fine-tuned on the training images knows them, and its features of other images differ.
    """
    if train.refit == "off" or not validated or not best.solved:
        return None
    stages = train.until(best.stage).stages
    return stages[-1] if all(stage.solve is True for stage in stages) else None


def refit_head(job: TrainingJob, stage: StageConfig, best: EpochRecord) -> int:
    """Solve the head again with the strength that was chosen, and return the number of images it was solved on.

    Args:
        job: The training job, with the weights of the best epoch; the head changes in place.
        stage: The solved stage of the best epoch.
        best: Record of the best epoch.

    Raises:
        StoppedError: A signal was received.
        DataError: An image vanished.
    """
    # Training images first: their features are then those that the stage has computed already.
    images = replace(job.images, train=(*job.images.train, *job.images.val), val=())
    everything = replace(job, images=images)
    set_trainable(job.model, job.backbone, "none", batch_norm="frozen")
    plan = plan_features(everything, stage, job.model)
    if plan.halves is None:
        raise ImagetuneError(f"the head of stage {stage.name!r} can't be solved: {plan.reason}")
    features = compute_solver_features(everything, stage, plan, plan.halves, first_epoch=best.epoch - 1)
    problem, scaler = build_problem(
        everything, features, objective=build_objective(everything), targets=build_targets(everything)
    )
    solve_into_model(job.model, problem, scaler, strength=best.solved["strength"])
    return len(images.train)
