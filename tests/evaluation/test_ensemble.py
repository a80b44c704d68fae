from __future__ import annotations

import numpy as np
import pytest

from imagetune.data.sources.labels import LabelRule
from imagetune.evaluation.ensemble import average_image_predictions, average_predictions, find_column_order
from imagetune.evaluation.image_predictions import ImagePrediction
from imagetune.evaluation.predictions import Predictions
from imagetune.model.loaded import LoadedModel
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig

PATHS = ("a.png", "b.png")


def predictions(rows, names, paths=PATHS):
    return Predictions(paths, np.array([0, 1]), np.array(rows, np.float64), names)


def test_columns_are_matched_by_name_before_the_mean():
    first = predictions([[0.7, 0.2, 0.1], [0.4, 0.5, 0.1]], ("ant", "bee", "cat"))
    second = predictions([[0.3, 0.1, 0.6], [0.0, 1.0, 0.0]], ("cat", "ant", "bee"))
    mean = average_predictions([first, second])
    np.testing.assert_allclose(mean.probabilities, [[0.4, 0.4, 0.2], [0.7, 0.25, 0.05]])
    assert mean.class_names == ("ant", "bee", "cat")
    np.testing.assert_array_equal(mean.labels, first.labels)


def test_every_member_counts_the_same():
    rows = [[[1.0, 0.0]] * 2, [[0.0, 1.0]] * 2, [[0.5, 0.5]] * 2]
    mean = average_predictions([predictions(table, ("ant", "bee")) for table in rows])
    np.testing.assert_allclose(mean.probabilities, 0.5)


def test_other_images_and_other_classes_are_no_ensemble():
    first = predictions([[1.0, 0.0]] * 2, ("ant", "bee"))
    with pytest.raises(ValueError, match="images differ"):
        average_predictions([first, predictions([[1.0, 0.0]] * 2, ("ant", "bee"), ("a.png", "c.png"))])
    with pytest.raises(ValueError, match="cow"):
        average_predictions([first, predictions([[1.0, 0.0]] * 2, ("ant", "cow"))])
    with pytest.raises(ValueError, match="ant"):
        find_column_order(("ant", "bee"), ("ant",))


def test_one_image_gets_the_mean_or_the_error_of_whoever_could_not_read_it():
    image = ImageSettings(height=32, width=32)
    first = LoadedModel(None, ("ant", "bee"), image, ModelConfig(), 10, "")
    one = ImagePrediction("a.png", "ant", {"ant": 0.6, "bee": 0.4}, None)
    two = ImagePrediction("a.png", "bee", {"bee": 0.9, "ant": 0.1}, None)
    mean = average_image_predictions([one, two], first)
    assert (mean.path, mean.label, mean.error) == ("a.png", "bee", None)
    assert mean.probabilities == pytest.approx({"ant": 0.35, "bee": 0.65})
    bad = ImagePrediction("a.png", None, {}, "too many pixels")
    assert average_image_predictions([one, bad], first) == bad


@pytest.mark.parametrize(
    ("flags", "flagged", "share"),
    [
        ([True, True, False], True, 2 / 3),
        ([True, False, False], False, 1 / 3),
        ([True, False], False, 1 / 2),
        ([True, None, None], True, 1.0),
        ([None, None], None, None),
    ],
)
def test_an_image_is_out_of_distribution_where_most_models_with_a_detector_flag_it(flags, flagged, share):
    first = LoadedModel(None, ("ant", "bee"), ImageSettings(height=32, width=32), ModelConfig(), 10, "")
    predictions = [
        ImagePrediction(
            "a.png", "ant", {"ant": 0.6, "bee": 0.4}, None, out_of_distribution=one, out_of_distribution_score=score
        )
        for one, score in zip(flags, (900.0, 3.0, 0.1), strict=False)
    ]
    mean = average_image_predictions(predictions, first)
    assert mean.out_of_distribution is flagged
    assert mean.out_of_distribution_score == (share if share is None else pytest.approx(share))


def test_numbers_are_averaged_too():
    image = ImageSettings(height=32, width=32)
    first = LoadedModel(None, ("age",), image, ModelConfig(), 10, "", task="regression")
    predictions = [ImagePrediction("a.png", text, {}, None, float(text)) for text in ("2", "5")]
    mean = average_image_predictions(predictions, first)
    assert (mean.value, mean.label, mean.probabilities) == (3.5, "3.5", {})


def test_thresholds_are_averaged_by_name_and_one_half_where_a_member_has_none():
    rule = LabelRule(task="multi_label")
    rows, empty = np.array([[0.6, 0.4]] * 2), np.full(2, -1)
    first = Predictions(PATHS, empty, rows, ("ant", "bee"), rule, rows, (0.2, 0.6))
    second = Predictions(PATHS, empty, rows, ("bee", "ant"), rule, rows, (0.4, 0.8))
    third = Predictions(PATHS, empty, rows, ("ant", "bee"), rule, rows)
    assert average_predictions([first, second]).thresholds == pytest.approx((0.5, 0.5))
    assert average_predictions([first, third]).thresholds == pytest.approx((0.35, 0.55))
    assert average_predictions([third, third]).thresholds == ()
    assert average_predictions([first, second]).rule == rule
