"""The table of metrics: each one's tasks, direction, title, range and scale, declared once.

Whatever lists, orders, titles or ranks metrics asks this table. They are computed in `imagetune.evaluation` (the test,
with intervals) and `imagetune.training` (an epoch, from sums over its batches).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal, TypeAlias

from imagetune.recipe.tasks import Task

# Scale on which a metric's interval is symmetric: `plain` is the metric itself; `loss` its logarithm, for losses and
# errors, which are at least 0; `shortfall` that of 1 minus the metric; `correlation` Fisher's z (Metron 1, 1921).
Scale: TypeAlias = Literal["plain", "loss", "shortfall", "correlation"]
Tasks: TypeAlias = tuple[Task, ...]

_SINGLE: Tasks = ("single_label",)
_MULTI: Tasks = ("multi_label",)
_ORDINAL: Tasks = ("ordinal",)
_NUMBER: Tasks = ("regression",)
_CLASSES: Tasks = ("single_label", "ordinal")
_LABELS: Tasks = ("single_label", "multi_label", "ordinal")


@dataclass(frozen=True)
class Metric:
    """A metric's declaration: tasks, direction, titles, range and scale; not how it is computed.

    Attributes:
        name: Key in recipes and files.
        title: Heading of its column or card.
        meaning: Explanation beside the title; ``{k}`` is the k of the top-k accuracy, ``{unit}`` the labels' unit: see
            `fill_in`.
        words: Name within a sentence; by default the title.
        test: Tasks whose test has it.
        epoch: Tasks whose training and validation have it after each epoch.
        per_class: Tasks of which each class, or label, has it.
        cards: Tasks whose report shows it first.
        compared: Tasks whose runs are compared by it.
        baselines: Tasks whose baselines are shown with it.
        higher_is_better: False of losses and errors.
        low: Smallest possible value.
        high: Largest possible value.
        scale: Scale on which its interval is symmetric.
        has_units: Whether it is in the labels' units, where three decimals may be too few or too many.
        mean_over: ``images`` for a share of images that are correct in some way; ``classes`` for a mean over classes,
            which is as uncertain as its smallest classes.
    """

    name: str
    title: str
    meaning: str = ""
    words: str = ""
    test: Tasks = ()
    epoch: Tasks = ()
    per_class: Tasks = ()
    cards: Tasks = ()
    compared: Tasks = ()
    baselines: Tasks = ()
    higher_is_better: bool = True
    low: float = 0.0
    high: float = 1.0
    scale: Scale = "plain"
    has_units: bool = False
    mean_over: Literal["images", "classes", ""] = ""

    @property
    def in_words(self) -> str:
        """Name within a sentence."""
        return self.words or self.heading

    @property
    def heading(self) -> str:
        """Title in lower case, as a heading of a table."""
        # Abbreviations and single letters keep their capital.
        return self.title[0].lower() + self.title[1:] if self.title[1:2].islower() else self.title

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1, so that differences are reported in percentage points."""
        return (self.low, self.high) == (0.0, 1.0)


def fill_in(text: str, *, k: int | str, unit: str = "") -> str:
    """Return a metric's title, name or meaning with the k of the top-k accuracy and the labels' unit as words.

    Titles say "Top-k", so that they can be shown where nobody knows the k.
    """
    return re.sub(r"\b([Tt])op-k\b", rf"\1op-{k}", text).format(k=k, unit=unit)


@dataclass(frozen=True)
class TaskMetrics:
    """The metrics that a task is judged by, where a single one is needed.

    Attributes:
        decides: Metric that decides which of two runs is better.
        verdict: Metric by which over-fitting is judged; its best value is 1.
        per_class: Metric by which the classes of two runs are compared; for regression, ranges of the target.
        per_image: Metric that is a mean over images of each prediction's error, or one minus that mean.
        robustness: Metric whose loss under corruption is measured.
    """

    decides: str
    verdict: str
    per_class: str
    per_image: str
    robustness: str


# Every list of metrics has this order: a task's own metrics come before those that all tasks with classes share.
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("loss", "Loss", epoch=(*_LABELS, *_NUMBER), higher_is_better=False, high=inf, scale="loss"),
        Metric(
            "mae",
            "Mean absolute error",
            "{unit}, lower is better",
            test=_ORDINAL + _NUMBER,
            epoch=_ORDINAL + _NUMBER,
            cards=_ORDINAL + _NUMBER,
            compared=_ORDINAL + _NUMBER,
            baselines=_ORDINAL + _NUMBER,
            higher_is_better=False,
            high=inf,
            scale="loss",
            has_units=True,
        ),
        Metric(
            "rmse",
            "Root mean squared error",
            "{unit}, lower is better",
            test=_NUMBER,
            cards=_NUMBER,
            compared=_NUMBER,
            baselines=_NUMBER,
            higher_is_better=False,
            high=inf,
            scale="loss",
            has_units=True,
        ),
        Metric(
            "r2",
            "R squared",
            "share of the variance that is explained",
            test=_NUMBER,
            epoch=_NUMBER,
            cards=_NUMBER,
            compared=_NUMBER,
            baselines=_NUMBER,
            low=-inf,
            scale="shortfall",
        ),
        Metric(
            "spearman",
            "Spearman",
            "correlation of the ranks",
            words="Spearman's rank correlation",
            test=_NUMBER,
            cards=_NUMBER,
            compared=_NUMBER,
            low=-1.0,
            scale="correlation",
        ),
        Metric(
            "quadratic_weighted_kappa",
            "Weighted kappa",
            "agreement beyond chance, large errors weigh more",
            test=_ORDINAL,
            cards=_ORDINAL,
            compared=_ORDINAL,
            baselines=_ORDINAL,
            low=-1.0,
            scale="shortfall",
        ),
        Metric(
            "within_one_rank",
            "Within one rank",
            "share of predictions at most one rank off",
            words="share within one rank",
            test=_ORDINAL,
            cards=_ORDINAL,
            compared=_ORDINAL,
            mean_over="images",
        ),
        Metric(
            "accuracy",
            "Accuracy",
            "share of correct predictions",
            test=_CLASSES,
            epoch=_LABELS,
            cards=_CLASSES,
            compared=_CLASSES,
            baselines=_CLASSES,
            mean_over="images",
        ),
        Metric(
            "balanced_accuracy",
            "Balanced accuracy",
            "each class counts the same",
            test=_CLASSES,
            cards=_CLASSES,
            compared=_CLASSES,
            baselines=_SINGLE,
            mean_over="classes",
        ),
        Metric(
            "mean_average_precision",
            "Mean average precision",
            "over all thresholds, mean of the classes",
            test=_MULTI,
            cards=_MULTI,
            compared=_MULTI,
            baselines=_MULTI,
            mean_over="classes",
        ),
        Metric(
            "precision",
            "Precision",
            "mean of the classes",
            test=_LABELS,
            epoch=_LABELS,
            per_class=_LABELS,
            mean_over="classes",
        ),
        Metric(
            "recall",
            "Recall",
            "mean of the classes",
            test=_LABELS,
            epoch=_LABELS,
            per_class=_LABELS,
            mean_over="classes",
        ),
        Metric(
            "f1",
            "F1",
            "mean of the classes",
            test=_LABELS,
            epoch=_LABELS,
            per_class=_LABELS,
            cards=_LABELS,
            compared=_LABELS,
            baselines=_SINGLE + _MULTI,
            mean_over="classes",
        ),
        Metric("average_precision", "Average precision", "over all thresholds", per_class=_MULTI),
        Metric(
            "micro_f1",
            "Micro F1",
            "every label counts the same",
            test=_MULTI,
            cards=_MULTI,
            compared=_MULTI,
        ),
        Metric(
            "top_k_accuracy",
            "Top-k accuracy",
            "the true class is among the {k} most probable",
            test=_CLASSES,
            cards=_SINGLE,
            mean_over="images",
        ),
        Metric("roc_auc", "ROC AUC", "each class against the rest", test=_CLASSES, per_class=_CLASSES, cards=_SINGLE),
        Metric(
            "log_loss",
            "Log loss",
            "in nats, lower is better",
            test=_CLASSES,
            cards=_SINGLE,
            compared=_CLASSES,
            higher_is_better=False,
            high=inf,
            scale="loss",
        ),
        Metric(
            "subset_accuracy",
            "Subset accuracy",
            "share of images with all labels correct",
            test=_MULTI,
            cards=_MULTI,
            compared=_MULTI,
            mean_over="images",
        ),
        Metric(
            "hamming_loss",
            "Hamming loss",
            "share of wrong labels, lower is better",
            words="Hamming loss",
            test=_MULTI,
            cards=_MULTI,
            compared=_MULTI,
            baselines=_MULTI,
            higher_is_better=False,
        ),
    )
}

TASK_METRICS: Mapping[Task, TaskMetrics] = {
    "single_label": TaskMetrics(
        decides="accuracy", verdict="accuracy", per_class="recall", per_image="accuracy", robustness="accuracy"
    ),
    "multi_label": TaskMetrics(
        decides="f1", verdict="f1", per_class="f1", per_image="hamming_loss", robustness="micro_f1"
    ),
    "ordinal": TaskMetrics(
        decides="mae", verdict="accuracy", per_class="recall", per_image="mae", robustness="accuracy"
    ),
    "regression": TaskMetrics(decides="mae", verdict="r2", per_class="mae", per_image="mae", robustness="mae"),
}

# The metrics by which over-fitting is judged, over all tasks.
VERDICT_METRICS = tuple(dict.fromkeys(metrics.verdict for metrics in TASK_METRICS.values()))
# The metrics of a test, and of an epoch, over all tasks.
TEST_METRICS = tuple(name for name, metric in METRICS.items() if metric.test)
EPOCH_METRICS = tuple(name for name, metric in METRICS.items() if metric.epoch)

if TYPE_CHECKING:
    TestMetric: TypeAlias = str
    EpochMetric: TypeAlias = str
else:
    # The names that a recipe may use: a literal, so that its JSON schema lists them. Type checkers can't compute one.
    TestMetric = Literal[TEST_METRICS]
    EpochMetric = Literal[EPOCH_METRICS]


def list_test_metrics(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that a test of the task has."""
    return tuple(name for name, metric in METRICS.items() if task in metric.test)


def list_epoch_metrics(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that an epoch of the task has, the loss included."""
    return tuple(name for name, metric in METRICS.items() if task in metric.epoch)


def list_class_metrics(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that each class, or label, has; none for regression."""
    return tuple(name for name, metric in METRICS.items() if task in metric.per_class)


def list_card_metrics(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that a report shows first."""
    return tuple(name for name, metric in METRICS.items() if task in metric.cards)


def list_compared_metrics(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that runs are compared by, the one that decides first."""
    return _first(TASK_METRICS[task].decides, (name for name, metric in METRICS.items() if task in metric.compared))


def list_baseline_metrics(task: Task) -> tuple[str, ...]:
    """Return the names of the metrics that baselines are shown with, the one that decides between runs first."""
    return _first(TASK_METRICS[task].decides, (name for name, metric in METRICS.items() if task in metric.baselines))


def is_lower_better(name: str) -> bool:
    """Return whether smaller values of a metric are better."""
    return not METRICS[name].higher_is_better


def name_metric(name: str) -> str:
    """Return a metric's name within a sentence: ``F1`` for ``f1``; that of a loss is its key."""
    return METRICS[name].in_words if name in METRICS else name


def format_number(value: float | None, digits: int = 3) -> str:
    """Return a number with ``digits`` decimals as text; a dash for None."""
    return "-" if value is None else f"{value:.{digits}f}"


def format_metric_value(value: float | None, name: str) -> str:
    """Return a metric's value as text: four significant digits where it has units, else three decimals."""
    return f"{value:.4g}" if value is not None and METRICS[name].has_units else format_number(value)


def _first(chosen: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((chosen, *names)))
