import pytest

from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.feature_cache.plan import AUTO_COPIES, read_feature_settings


def settings(stage=None, **train):
    first = {"name": "head", "epochs": 3, "learning_rate": 1e-3, **(stage or {})}
    config = TrainConfig.model_validate({"stages": [first], **train})
    return read_feature_settings(config, config.stages[0])


def test_a_stage_without_settings_of_its_own_has_those_of_all_stages():
    assert (settings().cut, settings().copies) == ("auto", "auto")
    assert (settings(cache="off", augmented_copies=3).cut, settings(cache="off", augmented_copies=3).copies) == (
        "off",
        3,
    )


def test_settings_of_a_stage_come_first():
    found = settings({"cache": "auto", "augmented_copies": 2}, cache="off", augmented_copies=3)
    assert (found.cut, found.copies) == ("auto", 2)


@pytest.mark.parametrize(
    ("stage", "kept"), [({}, True), ({"cache": "off"}, False), ({"unfreeze": "last 1 blocks"}, False)]
)
def test_the_whole_backbone_is_cached_where_nothing_of_it_is_trained(stage, kept):
    assert settings(stage).caches_backbone == kept


def test_copies_are_no_more_than_epochs_and_one_without_augmentation():
    assert settings().count_copies(20, augmented=True) == AUTO_COPIES
    assert settings().count_copies(2, augmented=True) == 2
    assert settings(augmented_copies=7).count_copies(20, augmented=True) == 7
    assert settings(augmented_copies=7).count_copies(20, augmented=False) == 1
