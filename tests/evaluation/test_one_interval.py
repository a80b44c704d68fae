"""One metric, one interval: what two parts of evaluation.json say of the same images is the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from imagetune.evaluation.document import build_evaluation_document, evaluate_split
from imagetune.evaluation.probabilities.calibration import describe_calibration
from imagetune.evaluation.probabilities.roc_curves import analyse_curves
from imagetune.evaluation.probabilities.selective import analyse_selective_prediction

CLASSES = ("ant", "bee", "cat")
# Analyses of the predictions alone; the others need a model.
ANALYSES = {
    "calibration": describe_calibration,
    "curves": analyse_curves,
    "selective_prediction": analyse_selective_prediction,
}


def list_metrics(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        yield path, value
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from list_metrics(entry, (*path, str(key)))


def find_contradictions(document: dict[str, Any], split: str) -> tuple[list[str], int]:
    """Return where a metric of the split has another interval than elsewhere, and how many are said again."""
    found, first, places = [], {}, 0
    for path, metric in list_metrics(document):
        elsewhere = {"train", "val", "test"} - {split}
        name = path[-1]
        # Without a value there is no interval, and after calibration or a threshold it is another metric.
        if elsewhere & {*path} or {"after", "gains"} & {*path} or metric["low"] is None:
            continue
        key = (name, round(metric["value"], 6))
        ends, where = (metric["low"], metric["high"]), ".".join(path)
        # Two classes may have the same value by chance.
        if key in first and first[key][0].split(".")[0] != path[0]:
            places += 1
            if ends != pytest.approx(first[key][1], rel=1e-5):
                found.append(f"{where}: {ends}, but {first[key][0]}: {first[key][1]}")
        first.setdefault(key, (where, ends))
    return found, places


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("task", ["single_label", "ordinal"])
def test_a_metric_has_the_same_interval_everywhere(examined: Any, task: str, grouped: bool) -> None:
    random, count = np.random.default_rng(3), 61
    labels, outputs = random.integers(0, 3, count), random.dirichlet([1, 1, 1], count)
    outputs[np.arange(count), labels] += 0.5
    outputs /= outputs.sum(axis=1, keepdims=True)
    names = [CLASSES[label] for label in labels]
    parts = {"val": names, "test": names}
    groups = {name: [str(place // 2) if grouped else None for place in range(count)] for name in parts}
    features = dict.fromkeys(parts, np.zeros((count, 2)))
    run = examined(parts, features, dict.fromkeys(parts, outputs), task=task, classes=CLASSES, groups=groups)
    split = run.splits["test"]
    evaluation = evaluate_split(
        split.predictions, config=run.evaluate, seed=run.seed, groups=[record.group for record in split.records]
    )
    document = build_evaluation_document({"test": evaluation}, config=run.evaluate)
    document |= {name: analyse(run) for name, analyse in ANALYSES.items()}
    found, places = find_contradictions(document, "test")
    assert found == []
    # The log loss of calibration at least; so the walk did find equal metrics.
    assert places >= 1
