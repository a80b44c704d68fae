"""No interval claims certainty or reaches beyond its metric, whatever so few images show: every task and metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite

import numpy as np
import pytest

from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.document import build_evaluation_document, evaluate_split
from imagetune.evaluation.predictions import Predictions
from imagetune.evaluation.statistics.intervals import Estimate
from imagetune.recipe.metrics import METRICS
from imagetune.recipe.sections.evaluate import EvaluateConfig, Requirement

CONFIG = EvaluateConfig(bootstrap_samples=100)
NAMES = ("a", "b", "c")
SIZES = (1, 2, 3, 5, 20)


def predictions_of(task: str, truth: np.ndarray, outputs: np.ndarray) -> Predictions:
    one_class = task in ("single_label", "ordinal")
    return Predictions(
        paths=tuple(map(str, range(len(truth)))),
        labels=truth if one_class else np.full(len(truth), -1),
        probabilities=outputs,
        class_names=NAMES[: outputs.shape[1]],
        rule=LabelRule(task, value_name="age") if task == "regression" else LabelRule(task),
        targets=np.zeros((0, 0)) if one_class else truth.reshape(len(truth), -1).astype(np.float64),
    )


def classes_of(task: str, count: int) -> Iterator[tuple[str, Predictions]]:
    spread, rare = np.arange(count) % 3, (np.arange(count) == 0).astype(int)
    for labels, kind in ((spread, "all classes"), (rare, "one image of a class"), (np.zeros(count, int), "one class")):
        for predicted, how in (
            (labels, "perfect"),
            ((labels + 1) % 3, "all wrong"),
            (np.zeros(count, int), "always the first"),
            (np.full(count, 2), "always the last"),
            (np.where(np.arange(count) == count - 1, (labels + 2) % 3, labels), "one mistake"),
        ):
            for sureness in (0.6, 1.0):
                outputs = sureness * np.eye(3)[predicted] + (1 - sureness) / 3
                yield f"{kind}, {how}, {sureness}", predictions_of(task, labels, outputs)
        yield f"{kind}, all the same", predictions_of(task, labels, np.full((count, 3), 1 / 3))


def labels_of(count: int) -> Iterator[tuple[str, Predictions]]:
    some, all_of = np.eye(3, dtype=int)[np.arange(count) % 3], np.ones((count, 3), int)
    for truth, kind in ((some, "one each"), (all_of, "all")):
        for outputs, how in ((truth, "perfect"), (1 - truth, "all wrong"), (all_of, "all"), (0 * truth, "none")):
            yield f"{kind}, predicted {how}", predictions_of("multi_label", truth, 0.1 + 0.8 * outputs)


def numbers_of(count: int) -> Iterator[tuple[str, Predictions]]:
    rising = np.arange(count, dtype=float)
    for truth, kind in ((rising, "rising"), (np.full(count, 7.0), "constant")):
        for given, how in (
            (truth, "perfect"),
            (truth + 1, "off by one"),
            (np.full(count, 3.0), "constant"),
            (-truth, "reversed"),
            (truth + (rising == 0), "one error"),
            (truth + 1e-9 * rising, "nearly perfect"),
        ):
            yield f"{kind}, {how}", predictions_of("regression", truth, given[:, None])


def cases(task: str) -> Iterator[tuple[str, Predictions]]:
    for count in SIZES:
        made = {"multi_label": labels_of, "regression": numbers_of}.get(task)
        for name, some in made(count) if made else classes_of(task, count):
            yield f"{count} images: {name}", some


def complaints(name: str, found: Estimate, limits: tuple[float, float]) -> Iterator[str]:
    if found.value is None or found.low is None or found.high is None:
        if not found.reason:
            yield f"{name} has no interval and no reason"
        return
    if not (isfinite(found.low) and isfinite(found.high)):
        yield f"{name} ends at no number: {found}"
    if found.high - found.low < 1e-6 * max(abs(found.value), 1e-9):
        yield f"{name} claims certainty: {found}"
    if not limits[0] <= found.low <= found.value + 1e-9 <= found.high + 2e-9 <= limits[1] + 4e-9:
        yield f"{name} is out of its range: {found}"


def list_estimates(some: Predictions, groups: list[str]) -> Mapping[str, Estimate]:
    found = evaluate_split(some, config=CONFIG, seed=1, groups=groups)
    by_class = {
        f"{one.name} {name}": metric for one in getattr(found, "classes", ()) for name, metric in one.metrics.items()
    }
    return {**found.metrics, **by_class}


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("task", ["single_label", "ordinal", "multi_label", "regression"])
def test_no_interval_is_certain_or_impossible(task: str, grouped: bool) -> None:
    found = []
    for case, some in cases(task):
        groups = [str(index // 2) for index in range(len(some.paths))] if grouped else []
        for name, metric in list_estimates(some, groups).items():
            declared = METRICS[name.split()[-1]]
            limits = (declared.low, 2.0) if task == "ordinal" and name == "mae" else (declared.low, declared.high)
            found += [f"{case}: {complaint}" for complaint in complaints(name, metric, limits)]
    assert found == []


def test_a_model_that_always_predicts_the_large_class_meets_no_lower_bound_of_one_half() -> None:
    # 0 of 10 rare images found still allows a recall of 0.28, and 120 of 120 one of 0.97.
    for rare in (1, 2, 10):
        labels = np.repeat([0, 1], [120, rare])
        some = predictions_of("single_label", labels, np.tile([0.9, 0.1], (120 + rare, 1)))
        test = evaluate_split(some, config=CONFIG, seed=1)
        found = test.metrics["balanced_accuracy"]
        assert found.value == 0.5
        assert found.low is not None
        assert found.high is not None
        assert found.low < 0.49
        assert found.high > 0.5 + (1 - 0.025 ** (1 / rare)) / 2 - 1e-9
        require = (Requirement(metric="balanced_accuracy", lower_bound=0.5),)
        config = CONFIG.model_copy(update={"require": require})
        assert not build_evaluation_document({"test": test}, config=config)["requirements"][0]["met"]


def test_ranks_of_few_images_stay_between_what_ranks_can_be() -> None:
    labels, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 2, 1, 0, 2])
    outputs = 0.9 * np.eye(3)[predicted] + 0.1 / 3
    metrics = evaluate_split(predictions_of("ordinal", labels, outputs), config=CONFIG, seed=1).metrics
    kappa, mae = metrics["quadratic_weighted_kappa"], metrics["mae"]
    assert kappa.low == -1.0
    assert mae.high == 2.0
