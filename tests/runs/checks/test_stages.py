import pytest

from imagetune.errors import RecipeError
from imagetune.runs.checks.recipe import load_checked_recipe

HEAD = "{name: head, epochs: 1, learning_rate: 1e-3}"


@pytest.fixture
def errors_of(tmp_path):
    def errors(text):
        path = tmp_path / "recipe.yaml"
        path.write_text(f"data: {{source: x, image_size: 64}}\n{text}\n")
        with pytest.raises(RecipeError) as caught:
            load_checked_recipe(path)
        return [line.removeprefix(f"error[recipe] {path}:") for line in caught.value.lines()]

    return errors


def test_drop_path_is_refused_where_the_backbone_has_none(errors_of):
    (line,) = errors_of("model: {backbone: vgg16, drop_path: 0.2}")
    assert line.startswith("2:26 model.drop_path: vgg16 has no stochastic depth; EfficientNets, ConvNeXts and vision")


def test_a_stage_of_a_vision_transformer_has_a_size_of_whole_patches(errors_of):
    stage = "{name: head, epochs: 1, learning_rate: 1e-3, image_size: 90}"
    (line,) = errors_of(f"model: {{backbone: deit_tiny, drop_path: 0.2}}\ntrain: {{stages: [{stage}]}}")
    assert "train.stages[0].image_size: deit_tiny takes images whose height and width are multiples of 16" in line
    assert line.endswith("the nearest to 90 are 80 and 96")


def test_the_class_token_is_refused_where_there_is_none(errors_of):
    (line,) = errors_of("model: {backbone: vgg16, head: {pooling: token}}")
    assert "model.head.pooling: token is for vision transformers, and vgg16 has no class token; use avg or max" in line


def test_unfreezing_nothing_after_everything_is_refused(errors_of):
    everything = "{name: all, unfreeze: all, epochs: 1, learning_rate: 1e-4}"
    (line,) = errors_of(f"train: {{stages: [{everything}, {HEAD}]}}")
    assert "stage 'head' unfreezes nothing after stage 'all' unfroze everything" in line


def test_a_frozen_head_on_a_frozen_backbone_is_refused(errors_of):
    (line,) = errors_of("train: {stages: [{name: head, epochs: 1, learning_rate: 1e-3, freeze_head: true}]}")
    assert "nothing is left to train" in line


def test_a_rate_of_zero_is_refused(errors_of):
    (line,) = errors_of("train: {stages: [{name: head, epochs: 1, learning_rate: 0}]}")
    assert "train.stages[0].learning_rate: 0 is wrong" in line


def test_an_image_size_that_the_backbone_cannot_take_is_refused(errors_of):
    stages = "[{name: head, epochs: 1, learning_rate: 1e-3, image_size: 16}]"
    (line,) = errors_of(f"train: {{stages: {stages}}}")
    assert "train.stages[0].image_size: efficientnet_lite0 takes images of at least 32 pixels, not 16" in line


def test_a_flattening_head_refuses_other_image_sizes(errors_of):
    stages = "[{name: head, epochs: 1, learning_rate: 1e-3, image_size: 48}]"
    (line,) = errors_of(f"train: {{stages: {stages}}}\nmodel: {{head: {{pooling: flatten}}}}")
    assert "a head with pooling: flatten fits one image size only" in line


def test_an_augmentation_of_a_stage_is_checked_like_that_of_all(errors_of):
    stages = "[{name: head, epochs: 1, learning_rate: 1e-3, augmentation: [{HorizontalFlap: {}}]}]"
    (line,) = errors_of(f"train: {{stages: {stages}}}")
    assert "train.stages[0].augmentation[0]" in line
    assert "HorizontalFlip" in line


def test_an_effective_batch_is_a_multiple_of_the_batch(errors_of):
    (line,) = errors_of("train: {batch_size: 24, effective_batch: 64}")
    assert "effective_batch 64 is not a multiple of batch_size 24" in line


def test_features_that_are_kept_and_blended_images_exclude_each_other(errors_of):
    stages = "[{name: head, epochs: 1, learning_rate: 1e-3, cache: block4}]"
    (line,) = errors_of(f"train: {{mix: mixup, stages: {stages}}}")
    assert "keeps features of block4, but the mix mixup blends images of each epoch" in line
