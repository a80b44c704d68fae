"""Analysis ``slices`` of evaluation.json: slices (subgroups) of the test on which the model is worse."""

from __future__ import annotations

from typing import Any

import numpy as np

from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.errors.regression_slices import compare_errors
from imagetune.evaluation.errors.slices import collect_attributes, compare_slices, find_correct_predictions
from imagetune.evaluation.metrics.regression import MAX_RANGES, MIN_IMAGES, bin_numbers
from imagetune.evaluation.statistics.bootstrap import Bootstrap
from imagetune.evaluation.statistics.intervals import encode_groups


def analyse_slices(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the comparison of each slice of the test with the rest; None where not asked for, or without a test.

    The document: ``images``, ``right`` (share of them), ``looked_at`` (number of slices), ``attributes``, ``text``,
    ``notes``, and ``slices``, the worst first: ``name``, ``attributes``, ``images``, ``right`` and ``rest`` (shares
    with Wilson's intervals), ``difference`` (with interval), ``expected`` (share of right images if each class were
    as hard as in the whole test), ``p`` and ``p_holm`` (Fisher, one-sided), ``p_classes`` and ``p_classes_holm`` (the
    same within classes), ``worse`` and ``worse_classes`` (whether the corrected p-values are below 0.05). Regression
    has ``error``, the mean absolute error, in place of ``right``, and ``p_ranges``, ``p_ranges_holm`` and
    ``worse_ranges`` (within ranges of the true number) in place of those within classes.
    """
    test = run.splits.get("test")
    if not run.evaluate.slices or test is None:
        return None
    attributes, predictions = collect_attributes(test, run.data), test.predictions
    grouped = encode_groups([record.group for record in test.records]) is not None
    config = run.evaluate
    if predictions.rule.task == "regression":
        errors = np.abs(predictions.probabilities[:, 0] - predictions.targets[:, 0])
        bootstrap = Bootstrap(config.bootstrap_samples, config.confidence, run.seed, stratified=False)
        ranges, _ = bin_numbers(predictions.targets[:, 0], most=MAX_RANGES, least=MIN_IMAGES)
        return compare_errors(errors, ranges, attributes, bootstrap=bootstrap, grouped=grouped)
    # An image whose label isn't among the classes is neither right nor wrong.
    known = (predictions.labels >= 0) | (predictions.rule.task == "multi_label")
    return compare_slices(
        find_correct_predictions(predictions)[known],
        predictions.labels[known],
        {name: values[known] for name, values in attributes.items()},
        confidence=config.confidence,
        grouped=grouped,
    )
