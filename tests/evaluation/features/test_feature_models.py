import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from imagetune.evaluation.features.feature_models import (
    MAX_ROWS,
    LabelledFeatures,
    collect_labelled_features,
    find_nearest,
    fit_probe,
    predict_by_neighbours,
    sample_training_rows,
)
from imagetune.training.head_solver.solve import fit_scaler


def classes(n=120, d=8, k=4, *, seed=0, spread=1.5):
    random = np.random.default_rng(seed)
    means = np.random.default_rng(99).normal(size=(k, d)) * spread
    labels = random.integers(0, k, n)
    features = (means[labels] + random.normal(size=(n, d))).astype(np.float32)
    return LabelledFeatures(features, np.eye(k)[labels], labels, np.arange(n), "single_label")


def scale_as_a_solved_head(features):
    """The probe's scaling, so that it and a solved head differ in what they learn from alone."""
    return FunctionTransformer(fit_scaler(features).transform)


def test_the_probe_is_scikit_learns_logistic_regression_on_features_scaled_as_a_solved_heads():
    taught, asked = classes(), classes(seed=1)
    expected = make_pipeline(
        scale_as_a_solved_head(taught.features), LogisticRegression(C=0.1, max_iter=2000, tol=1e-8)
    )
    expected.fit(taught.features, taught.labels)
    predictions = fit_probe(taught, 0.1)(asked.features)
    assert predictions == pytest.approx(expected.predict_proba(asked.features), abs=5e-3)


def test_a_class_without_images_is_never_likely():
    taught = classes(k=4)
    rest = taught.taken(np.flatnonzero(taught.labels != 2))
    predictions = fit_probe(rest, 0.1)(taught.features)
    assert predictions.shape == (120, 4)
    assert not predictions[:, 2].any()
    assert predictions.sum(axis=1) == pytest.approx(1)


def test_the_probe_of_numbers_is_ridge_regression():
    random = np.random.default_rng(0)
    features = random.normal(size=(60, 5)).astype(np.float32)
    values = features @ np.arange(5.0) + random.normal(size=60)
    taught = LabelledFeatures(features, values[:, None], np.full(60, -1), np.arange(60), "regression")
    expected = make_pipeline(scale_as_a_solved_head(features), Ridge(alpha=10.0)).fit(features, values)
    assert fit_probe(taught, 0.1)(features)[:, 0] == pytest.approx(expected.predict(features), rel=1e-4, abs=1e-4)


def test_the_probe_of_several_labels_predicts_each_for_itself():
    taught = classes(k=3)
    targets = np.stack([taught.labels == 0, taught.labels >= 1, np.zeros(120)], axis=1).astype(np.float64)
    several = LabelledFeatures(taught.features, targets, np.full(120, -1), np.arange(120), "multi_label")
    predictions = fit_probe(several, 0.1)(taught.features)
    assert ((predictions[:, 0] > 0.5) == (taught.labels == 0)).mean() > 0.9
    assert predictions[:, 0] + predictions[:, 1] == pytest.approx(1, abs=1e-2)
    assert not predictions[:, 2].any()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_neighbours_are_those_of_scikit_learn(count):
    taught, asked = classes(), classes(seed=1)
    known = KNeighborsClassifier(n_neighbors=count, metric="cosine").fit(taught.features, taught.labels)
    predictions = predict_by_neighbours(taught, asked.features, [1, 3, 7])[count]
    assert predictions == pytest.approx(known.predict_proba(asked.features), abs=1e-5)
    distances, indices = known.kneighbors(asked.features)
    found, cosines = find_nearest(asked.features, taught.features, count)
    assert (found == indices).all()
    assert cosines == pytest.approx(1 - distances, abs=1e-5)


def test_between_equal_votes_the_nearer_neighbour_decides():
    features = np.array([[1.0, 0.0], [0.9, 0.5], [0.0, 1.0]], np.float32)
    labels = np.array([1, 0, 0])
    taught = LabelledFeatures(features, np.eye(2)[labels], labels, np.arange(3), "single_label")
    predictions = predict_by_neighbours(taught, np.array([[1.0, 0.1]]), [2])[2]
    assert predictions.argmax() == 1
    assert predictions == pytest.approx(0.5, abs=1e-5)


def test_neighbours_of_numbers_are_averaged():
    random = np.random.default_rng(0)
    features, values = random.normal(size=(40, 3)).astype(np.float32), random.normal(size=40)
    taught = LabelledFeatures(features, values[:, None], np.full(40, -1), np.arange(40), "regression")
    known = KNeighborsRegressor(n_neighbors=5, metric="cosine").fit(features, values)
    asked = random.normal(size=(10, 3))
    assert predict_by_neighbours(taught, asked, [5])[5][:, 0] == pytest.approx(known.predict(asked))


def test_features_without_length_are_near_to_nothing():
    found, cosines = find_nearest(np.zeros((1, 2)), np.array([[1.0, 0.0], [0.0, 1.0]]), 2)
    assert cosines.tolist() == [[0.0, 0.0]]
    assert sorted(found[0].tolist()) == [0, 1]


def test_many_images_are_drawn_from_without_repetition():
    many = LabelledFeatures(
        np.zeros((5000, 2), np.float32), np.ones((5000, 1)), np.zeros(5000, int), np.arange(5000), "ordinal"
    )
    rows = sample_training_rows(many, seed=1)
    assert len(rows) == len(set(rows.tolist())) == MAX_ROWS
    assert (rows == sample_training_rows(many, seed=1)).all()


def test_images_with_unknown_labels_are_left_out(examined):
    run = examined(
        {"test": ["a", "what", "b"]}, {"test": np.eye(3)}, {"test": np.full((3, 2), 0.5)}, classes=("a", "b")
    )
    found = collect_labelled_features(run.splits["test"])
    assert found.rows.tolist() == [0, 2]
    assert found.targets.tolist() == [[1, 0], [0, 1]]
    assert collect_labelled_features(None) is None
