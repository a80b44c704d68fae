import numpy as np
import pytest

from imagetune.evaluation.features.feature_models import LabelledFeatures, fit_probe
from imagetune.evaluation.features.out_of_fold import deal_folds, predict_out_of_fold


def test_folds_are_stratified_and_keep_units_together():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [100, 60, 30, 10])
    units = list(range(200))
    for place in random.choice(199, 40, replace=False):
        units[place + 1] = units[place]
    taught = LabelledFeatures(np.zeros((200, 1), np.float32), np.eye(4)[labels], labels, np.arange(200), "single_label")
    folds = deal_folds(units, taught, folds=5, seed=0)
    for unit in set(units):
        assert len(set(folds[np.array(units) == unit].tolist())) == 1
    for label, count in enumerate([100, 60, 30, 10]):
        inside = np.bincount(folds[labels == label], minlength=5)
        assert np.abs(inside - count / 5).max() <= 3
    assert np.bincount(folds).max() - np.bincount(folds).min() <= 5


def test_out_of_fold_predictions_come_from_the_other_folds():
    random = np.random.default_rng(1)
    labels = np.arange(100) % 4
    features = random.normal(size=(4, 16))[labels] + random.normal(size=(100, 16))
    taught = LabelledFeatures(features.astype(np.float32), np.eye(4)[labels], labels, np.arange(100), "single_label")
    folds = np.arange(100) % 5
    strength, predictions = predict_out_of_fold(taught, folds, seed=0)
    for fold in range(5):
        expected = fit_probe(taught.taken(np.flatnonzero(folds != fold)), strength)(taught.features[folds == fold])
        assert predictions[folds == fold] == pytest.approx(expected)
