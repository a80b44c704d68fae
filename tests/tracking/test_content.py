from __future__ import annotations

from tracking_helpers import evaluation, set_state, start_run

from imagetune.tracking.content import (
    clean_tags,
    flatten_recipe,
    list_epoch_metrics,
    list_fold_metrics,
    name_test_metrics,
    read_image_set,
    read_recipe,
)
from imagetune.tracking.content import (
    list_test_metrics as metrics_of,
)
from imagetune.tracking.description import describe_run


def test_a_recipe_becomes_flat_parameters(tmp_path):
    parameters = flatten_recipe(read_recipe(start_run(tmp_path / "run")))
    assert parameters["train.stages.0.name"] == "head"
    assert parameters["train.stages.1.learning_rate"] == "0.0001"
    assert parameters["data.augmentation"] == '[{"HorizontalFlip": {"p": 0.5}}]'
    assert parameters["model.head.hidden"] == "none"
    assert parameters["train.class_weights.a_ b_c"] == "2.0"
    assert not [key for key in parameters if key.startswith("tracking")]


def test_long_values_and_odd_names_are_cut_to_what_mlflow_takes():
    parameters = flatten_recipe({"x" * 300: "y" * 7000, "../up": 1})
    assert {len(key) for key in parameters} == {250, 5}
    assert max(len(value) for value in parameters.values()) == 6000
    assert clean_tags({"my/tag:1": "v" * 9000})["my_tag_1"] == "v" * 5000


def test_names_that_become_one_keep_both_their_values():
    weights = {"a/b": 1.0, "a:b": 2.0, "a?b": 3.0}
    found = flatten_recipe({"train": {"class_weights": weights}})
    assert sorted(found.values()) == ["1.0", "2.0", "3.0"]
    assert len({key[:250] for key in flatten_recipe({"x": {"n" * 300 + end: end for end in "ab"}})}) == 2


def test_plain_lists_are_one_parameter_and_lists_of_sections_many():
    parameters = flatten_recipe({"a": [1, 2], "b": [{"c": True}, {"c": None}], "d": []})
    assert parameters == {"a": "1, 2", "b.0.c": "true", "b.1.c": "none", "d": "none"}


def test_an_epoch_gives_its_finite_metrics_by_name():
    line = {"epoch": 1, "train": {"loss": 0.5, "f1": None}, "val": None, "learning_rate": 0.001}
    assert list_epoch_metrics(line) == {"train/loss": 0.5, "learning_rate": 0.001}


def test_test_metrics_come_with_their_intervals_headline_first():
    metrics = metrics_of(evaluation(0.5))
    assert [metric.name for metric in metrics] == ["accuracy", "balanced_accuracy", "f1", "log_loss"]
    sent = name_test_metrics(metrics)
    assert (
        sent["test/accuracy"],
        sent["test_interval/accuracy_low"],
        sent["test_interval/accuracy_high"],
    ) == (0.5, 0.4, 0.55)
    assert metrics_of({}) == []
    assert metrics_of({"splits": {"test": {"metrics": {"accuracy": {"value": None}}}}}) == []


def test_the_image_set_changes_with_an_image(tmp_path):
    run = start_run(tmp_path / "run")
    recipe = read_recipe(run)
    before = read_image_set(run, recipe)
    assert (before.name, before.counts, before.classes) == ("images", {"train": 12, "val": 3, "test": 3}, 3)
    (run / "lock.json").write_text('{"images": {"a.png": "01"}}')
    assert read_image_set(run, recipe).digest != before.digest


def test_the_description_says_what_a_reviewer_asks(tmp_path):
    run = start_run(tmp_path / "run")
    recipe = read_recipe(run)
    metrics, images = metrics_of(evaluation()), read_image_set(run, recipe)
    text = describe_run(recipe, {"state": "finished"}, evaluation(), metrics, images)
    assert "| accuracy | **0.875** | 0.775 to 0.925 |" in text
    assert "**Training and test are close.** No gap. Go on." in text
    assert "**Requirement missed:** test f1: 0.1 below the required 0.9" in text
    assert "| metric on the test images | value | 95% confidence interval |" in text
    assert "Model: **efficientnet_lite0**, weights imagenet" in text
    assert "12 training, 3 validation, 3 test" in text
    failed = describe_run(recipe, {"state": "failed", "error": "the loss is NaN"}, {}, [], None)
    assert failed.startswith("**The run failed:** the loss is NaN")


def test_a_folder_with_nothing_in_it_yet_is_no_error(tmp_path):
    set_state(tmp_path, "running")
    assert read_recipe(tmp_path) == {}
    assert read_image_set(tmp_path, {}) is None
    assert describe_run({}, {}, {}, [], None) == ""


def folded():
    spread = {"mean": 0.75, "low": 0.6, "high": 0.9, "sd": 0.1, "min": 0.7, "max": 0.8}
    folds = [{"fold": 1, "metrics": {"accuracy": 0.7}}, {"fold": 2, "metrics": {"accuracy": 0.8, "roc_auc": None}}]
    return {"folds": {"count": 2, "metrics": {"accuracy": spread}, "by_fold": folds}}


def test_folds_give_their_mean_its_interval_and_a_step_each():
    assert list_fold_metrics(folded()) == [
        ("folds/accuracy", 0.75, 0),
        ("folds_interval/accuracy_low", 0.6, 0),
        ("folds_interval/accuracy_high", 0.9, 0),
        ("fold/accuracy", 0.7, 1),
        ("fold/accuracy", 0.8, 2),
    ]
    assert list_fold_metrics({}) == []


def test_the_description_has_a_line_of_the_folds():
    text = describe_run({}, {}, folded(), [], None)
    assert "Cross-validation over 2 folds, mean and interval: accuracy **0.750** (0.600 to 0.900)" in text
    assert "Cross-validation" not in describe_run({}, {}, {}, [], None)
