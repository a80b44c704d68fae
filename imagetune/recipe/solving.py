"""Where a linear head can be solved to the optimum of a convex problem, instead of trained step by step."""

from __future__ import annotations

from collections.abc import Mapping

from imagetune.recipe.sections.learning import LossConfig
from imagetune.recipe.sections.model import HeadConfig
from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.recipe.tasks import Task

# What `loss: auto` means. Squared EMD takes the order of classes into account; Huber is robust to outliers.
DEFAULT_LOSS: Mapping[Task, str] = {
    "single_label": "cross_entropy",
    "multi_label": "cross_entropy",
    "ordinal": "squared_emd",
    "regression": "huber",
}


def resolve_loss_name(config: LossConfig, task: Task) -> str:
    """Return the name of the loss that training minimises: the task's default for ``auto``."""
    return DEFAULT_LOSS[task] if config.name == "auto" else config.name


def is_solved(train: TrainConfig, stage: StageConfig, head: HeadConfig, task: Task) -> bool:
    """Return whether a stage's head is going to be solved, as far as the recipe alone says."""
    return stage.solve is not False and not find_solver_obstacle(train, stage, head, task)


def find_solver_obstacle(train: TrainConfig, stage: StageConfig, head: HeadConfig, task: Task) -> str:
    """Return why the head of a stage must be trained step by step, as a clause; empty where it can be solved.

    Args:
        train: Settings that all stages share.
        stage: A stage that leaves the backbone frozen.
        head: The head.
        task: What a label is.
    """
    obstacles = {
        "the head has hidden layers, so that its loss is not convex": bool(head.hidden),
        "model.head has penalties of its own (l1, l2)": bool(head.l1 or head.l2),
        f"{train.mix.name} blends images anew in each epoch": train.mix.name != "none",
        "the teacher predicts the images of each epoch": train.teacher is not None,
        "train.cache is off, and a solved head needs the features of all images": (stage.cache or train.cache) == "off",
        "the stage has an image size of its own": stage.image_size is not None,
        _describe_loss_obstacle(train, task): True,
    }
    return next((text for text, there in obstacles.items() if text and there), "")


def _describe_loss_obstacle(train: TrainConfig, task: Task) -> str:
    name = resolve_loss_name(train.loss, task)
    if name == "mae":
        return "the loss mae has no gradient where an error is 0"
    # `auto` of ordered classes has a convex problem of its own, which stands for squared_emd.
    if name in ("cross_entropy", "huber", "mse") or train.loss.name == "auto":
        return ""
    return f"the loss {name} is not known to be convex"
