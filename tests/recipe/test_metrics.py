"""The table of metrics agrees with the recipe's names and with what training and test compute."""

from __future__ import annotations

from typing import get_args

import pytest

from imagetune.recipe.metrics import (
    METRICS,
    TASK_METRICS,
    TEST_METRICS,
    fill_in,
    format_metric_value,
    is_lower_better,
    list_baseline_metrics,
    list_card_metrics,
    list_class_metrics,
    list_compared_metrics,
    list_epoch_metrics,
    list_test_metrics,
)
from imagetune.recipe.sections.evaluate import Requirement
from imagetune.recipe.sections.search import SearchConfig
from imagetune.recipe.sections.train import EarlyStoppingConfig
from imagetune.recipe.tasks import Task
from imagetune.training.objectives.metrics import build_tally

TASKS: tuple[Task, ...] = get_args(Task)


def test_a_recipe_may_name_the_metrics_of_the_table_and_no_others() -> None:
    assert tuple(Requirement.model_json_schema()["properties"]["metric"]["enum"]) == TEST_METRICS
    epoch = {name for task in TASKS for name in list_epoch_metrics(task)}
    for section, key in ((SearchConfig, "objective"), (EarlyStoppingConfig, "metric")):
        assert set(section.model_json_schema()["properties"][key]["enum"]) == epoch


@pytest.mark.parametrize("task", TASKS)
def test_an_epoch_has_the_metrics_of_the_table(task: Task) -> None:
    outputs = 1 if task == "regression" else 3
    assert set(build_tally(task, outputs).metrics(0.5)) == set(list_epoch_metrics(task))


@pytest.mark.parametrize("task", TASKS)
def test_what_stands_for_a_task_is_a_metric_that_it_has(task: Task) -> None:
    chosen, tested = TASK_METRICS[task], list_test_metrics(task)
    assert {chosen.decides, chosen.verdict, chosen.per_image, chosen.robustness} <= set(tested)
    assert chosen.per_class in list_class_metrics(task) or task == "regression"
    assert list_compared_metrics(task)[0] == chosen.decides
    for shown in (list_card_metrics(task), list_compared_metrics(task), list_baseline_metrics(task)):
        assert shown
        assert set(shown) <= set(tested)
        assert len(set(shown)) == len(shown)


def test_losses_and_errors_are_better_when_lower() -> None:
    assert {name for name in METRICS if is_lower_better(name)} == {"loss", "log_loss", "hamming_loss", "mae", "rmse"}


def test_a_metric_is_called_in_a_sentence_what_its_title_says_unless_it_has_other_words() -> None:
    assert METRICS["balanced_accuracy"].in_words == "balanced accuracy"
    assert METRICS["roc_auc"].in_words == "ROC AUC"
    assert METRICS["r2"].in_words == "R squared"
    assert METRICS["f1"].in_words == "F1"
    assert METRICS["f1"].heading == "F1"


def test_values_in_the_labels_units_have_four_digits_and_others_three_decimals() -> None:
    assert format_metric_value(1234.5678, "rmse") == "1235"
    assert format_metric_value(0.81234, "accuracy") == "0.812"
    assert format_metric_value(None, "mae") == "-"


def test_no_title_or_name_holds_a_placeholder():
    for metric in METRICS.values():
        assert "{" not in metric.title + metric.in_words + metric.heading


def test_the_k_is_filled_in_where_it_is_known():
    metric = METRICS["top_k_accuracy"]
    assert fill_in(metric.title, k=3) == "Top-3 accuracy"
    assert fill_in(metric.in_words, k=3) == "top-3 accuracy"
    assert fill_in(metric.meaning, k=3) == "the true class is among the 3 most probable"
