import pytest

from imagetune.errors import RecipeError
from imagetune.runs.checks.recipe import load_checked_recipe

HEAD = "data: {source: x, image_size: 64}\n"


@pytest.fixture
def lines(tmp_path):
    def lines(text):
        path = tmp_path / "r.yaml"
        path.write_text(HEAD + text)
        try:
            load_checked_recipe(path)
        except RecipeError as error:
            return [line.removeprefix(f"error[recipe] {path}:") for line in error.lines()]
        return []

    return lines


def test_every_value_of_a_choice_is_checked_where_it_stands(lines):
    found = lines(
        "train:\n"
        "  optimizer: {search: choice, values: [adamw, {name: sgd, momentm: 0.9}, lion, adamm]}\n"
        "  batch_size: {search: choice, values: [8, '16']}\n"
        "model:\n"
        "  backbone: {search: choice, values: [efficientnet_lite0, resnet5]}\n"
    )
    assert [line.split(";")[0] for line in found] == [
        "3:59 train.optimizer.momentm: unknown key",
        "3:80 train.optimizer: 'adamm' is wrong: expected 'adamw', 'adam', 'sgd', 'rmsprop' or 'lion'",
        "4:44 train.batch_size: '16' is wrong: expected a whole number or 'auto'",
        "6:59 model.backbone: unknown backbone 'resnet5'",
    ]


def test_both_ends_of_a_range_are_checked(lines):
    found = lines("model: {head: {dropout: {search: uniform, low: -0.1, high: 1.5, default: 0.5}}}\n")
    assert found == [
        "2:43 model.head.dropout: -0.1 is wrong: expected at least 0.0",
        "2:54 model.head.dropout: 1.5 is wrong: expected at most 1.0",
    ]


def test_an_error_elsewhere_says_which_value_it_comes_from(lines):
    found = lines("train: {effective_batch: 64, batch_size: {search: int, low: 8, high: 32, step: 8}}\n")
    assert found == [
        "2:1 train: effective_batch 64 is not a multiple of batch_size 24 (tried with train.batch_size: 24)",
    ]


def test_a_conditional_space_is_checked_with_its_condition_met(lines):
    text = (
        "train:\n  optimizer:\n"
        "    name: {search: choice, values: [adamw, sgd]}\n"
        "    momentum: {search: uniform, low: 0.5, high: 1.5, when: {train.optimizer.name: sgd}}\n"
    )
    assert lines(text) == [
        '5:43 train.optimizer.momentum: 1.5 is wrong: expected at most 1.0 (tried with train.optimizer.name: "sgd")'
    ]


def test_images_that_a_backbone_cannot_take_are_found(lines):
    (line,) = lines("model: {backbone: {search: choice, values: [efficientnet_lite0, inception_v3]}}\n")
    assert "takes images of at least 75 pixels" in line
    assert '(tried with model.backbone: "inception_v3")' in line


def test_transforms_of_an_augmentation_are_checked(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data:\n  source: x\n  augmentation: {search: choice, values: [none, [{HorizontalFlop: {}}]]}\n")
    with pytest.raises(RecipeError, match="albumentations has no transform 'HorizontalFlop'") as caught:
        load_checked_recipe(path)
    assert caught.value.where == f"{path}:3:51 data.augmentation[0].HorizontalFlop"


def test_good_spaces_are_good(lines):
    assert lines("train: {optimizer: {search: choice, values: [adamw, {name: sgd, momentum: 0.9}]}}\n") == []


@pytest.mark.parametrize(
    "key", ["source", "max_pixels", "on_bad_image", "classes", "split"], ids=lambda key: f"data.{key}"
)
def test_what_trials_are_compared_by_cannot_be_a_space(tmp_path, key):
    values = {"source": "[x, y]", "max_pixels": "[100, 200]", "on_bad_image": "[skip, error]"}
    values |= {"classes": "[[a, b], [a, c]]", "split": "[{val: 0.1}, {val: 0.2}]"}
    path = tmp_path / "r.yaml"
    source = "" if key == "source" else "source: x, "
    path.write_text(f"data: {{{source}{key}: {{search: choice, values: {values[key]}}}}}\n")
    with pytest.raises(RecipeError, match=f"data.{key}: can't be searched: it would change what trials are compared"):
        load_checked_recipe(path)


def test_an_int_space_is_proposed_where_numbers_must_be_whole(lines):
    text = "train: {batch_size: {search: uniform, low: 8, high: 32, default: 16}}\n"
    assert lines(text)[0].endswith(
        "expected a whole number or 'auto' (the default of this uniform space); for whole numbers write search: int"
    )
