"""How a model was trained, as its verdict is told."""

import pytest

from imagetune.recipe.sections.train import TrainConfig
from imagetune.runs.test import describe_course

STAGES = [
    {"name": "head", "unfreeze": "none", "epochs": 3, "learning_rate": 1e-3},
    {"name": "top", "unfreeze": "last 2 blocks", "epochs": 3, "learning_rate": 1e-4},
]
TRAIN = TrainConfig.model_validate({"stages": STAGES})


def epochs(*losses, stage="top"):
    return [{"stage": stage, "epoch": number, "val": {"loss": loss}} for number, loss in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("losses", "rose"), [((1.0, 0.5, 0.9), True), ((1.0, 0.5, 0.51), False), ((1.0, 0.5), None), ((), None)]
)
def test_a_validation_loss_rose_or_did_not_or_had_too_few_epochs_to_tell(losses, rose):
    assert describe_course(TRAIN, epochs(*losses), ()).rose is rose


def test_stages_that_were_dropped_are_known_by_what_the_training_noted():
    stages = [
        {"name": "head"},
        {"name": "top"},
        {"name": "top", "judged": {"kept": False}},
        {"name": "more", "judged": {"kept": False}},
        {"name": "more", "judged": {"kept": True}},
    ]
    course = describe_course(TRAIN.until("head"), epochs(0.4, stage="head"), stages)
    assert (course.frozen, course.dropped) == (True, ("top",))
