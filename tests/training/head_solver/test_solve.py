"""A solved head: the optimum of a convex problem, on plain features, with a penalty chosen by cross-validation."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from imagetune.recipe.sections.learning import LossConfig
from imagetune.recipe.tasks import Task
from imagetune.training.head_solver.losses import build_convex_loss
from imagetune.training.head_solver.solve import (
    HeadProblem,
    LinearHead,
    choose_strength,
    fit_scaler,
    solve_head,
)


def make_features(rows: int, width: int, *, seed: int = 0) -> np.ndarray:
    """Return features of very different scales, as pooled features have them, the last of them constant."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, width)) * np.geomspace(0.01, 10, width) + random.normal(size=width)
    features[:, -1] = 3.0
    return features.astype(np.float32)


def make_problem(features: np.ndarray, targets: np.ndarray, task: Task, loss: str = "auto") -> HeadProblem:
    """Return a problem whose rows all weigh 1."""
    return HeadProblem(
        features,
        targets.astype(np.float32),
        np.ones(len(features), np.float32),
        build_convex_loss(LossConfig(name=loss), task, targets.shape[1]),
        np.zeros(targets.shape[1], np.float32),
    )


@pytest.mark.parametrize("width", [8, 60], ids=["more rows than features", "more features than rows"])
def test_one_class_of_several_is_the_logistic_regression_of_scikit_learn(width: int) -> None:
    """Its probabilities on plain features are those of the library on standardised ones."""
    features, labels = make_features(40, width), np.arange(40) % 3
    scaler = fit_scaler(features)
    problem = make_problem(scaler.transform(features), np.eye(3)[labels], "single_label")
    head = scaler.fold_into(solve_head(problem, 0.1))
    scaled = (features - scaler.mean) / scaler.scale
    expected = LogisticRegression(C=0.1, tol=1e-8, max_iter=10_000).fit(scaled, labels)
    logits = features.astype(np.float64) @ head.kernel + head.bias
    own = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert own == pytest.approx(expected.predict_proba(scaled), abs=2e-3)


def test_a_number_with_squared_error_is_ridge_regression() -> None:
    """Squared error has twice the slope of Ridge's half, so the penalty is halved."""
    features = make_features(50, 6)
    values = features[:, :1] * 3 + np.random.default_rng(1).normal(size=(50, 1)).astype(np.float32)
    scaler = fit_scaler(features)
    head = solve_head(make_problem(scaler.transform(features), values, "regression", "mse"), 0.5)
    expected = Ridge(alpha=1.0).fit((features - scaler.mean) / scaler.scale, values)
    assert head.kernel.ravel() == pytest.approx(expected.coef_.ravel(), abs=2e-3)


def test_labels_of_several_are_independent() -> None:
    """A label's head doesn't change with the other labels."""
    features, random = make_features(60, 5), np.random.default_rng(2)
    targets = (random.random((60, 2)) < 0.4).astype(np.float32)
    scaler = fit_scaler(features)
    both = solve_head(make_problem(scaler.transform(features), targets, "multi_label"), 0.2)
    # The loss is the mean over the labels: for one label alone the same penalty is half as strong.
    alone = solve_head(make_problem(scaler.transform(features), targets[:, :1], "multi_label"), 0.1)
    assert both.kernel[:, 0] == pytest.approx(alone.kernel[:, 0], abs=2e-3)


def test_ordered_classes_move_along_one_direction() -> None:
    """The log odds of neighbouring classes have the same slopes, as in an adjacent-category logit model."""
    features = make_features(80, 4)
    ranks = np.digitize(features[:, 2] + 0.1 * np.random.default_rng(3).normal(size=80), [-0.5, 0.5, 1.0])
    head = solve_head(make_problem(fit_scaler(features).transform(features), np.eye(4)[ranks], "ordinal"), 1.0)
    steps = np.diff(head.kernel, axis=1)
    assert steps[:, 1:] == pytest.approx(np.repeat(steps[:, :1], 2, axis=1), abs=1e-9)
    assert np.abs(head.kernel).max() > 0.1


def test_rows_without_weight_change_nothing() -> None:
    """A row of weight 0 is as good as absent."""
    features, labels = make_features(40, 5), np.arange(40) % 2
    problem = make_problem(fit_scaler(features).transform(features), np.eye(2)[labels], "single_label")
    muted = HeadProblem(
        problem.features,
        problem.targets,
        np.where(np.arange(40) < 30, 1, 0).astype(np.float32),
        problem.loss,
        problem.offset,
    )
    kept = problem.select(np.arange(40) < 30)
    assert solve_head(muted, 0.1).kernel == pytest.approx(solve_head(kept, 0.1).kernel, abs=1e-3)


def test_a_strong_penalty_is_chosen_for_noise_and_a_weak_one_for_a_clear_signal() -> None:
    """The cross-validated loss decides."""
    random = np.random.default_rng(4)
    features, labels = random.normal(size=(120, 30)).astype(np.float32), np.arange(120) % 2
    folds, tested = (np.arange(120) // 2) % 5, np.ones(120, bool)
    noise = choose_strength(make_problem(features, np.eye(2)[labels], "single_label"), folds, tested)
    clear = features + 4 * np.where(labels, 1, -1)[:, None].astype(np.float32)
    signal = choose_strength(make_problem(clear, np.eye(2)[labels], "single_label"), folds, tested)
    assert noise.strength <= 3e-3
    assert signal.strength >= 3e-2
    assert (signal.logits.argmax(axis=1) == labels).all()


def test_out_of_fold_logits_come_from_heads_without_the_image() -> None:
    """Labels at random can't be predicted out of fold, though a head of all rows would know them."""
    random = np.random.default_rng(5)
    features, labels = random.normal(size=(100, 400)).astype(np.float32), random.integers(0, 2, 100)
    problem = make_problem(features, np.eye(2)[labels], "single_label")
    logits = choose_strength(problem, np.arange(100) % 5, np.ones(100, bool), [1.0]).logits
    inside = solve_head(problem, 1.0).compute_logits(features)
    assert (inside.argmax(axis=1) == labels).all()
    assert (logits.argmax(axis=1) == labels).mean() < 0.75


def test_a_feature_that_never_fired_in_training_decides_nothing_when_it_does() -> None:
    """Its scaled value stays of the order of the others."""
    features = make_features(40, 9)
    features[:, 3] *= 1e-4
    scaler = fit_scaler(features)
    unusual = features[:1].copy()
    unusual[0, 3] += float(np.median(features.std(axis=0)))
    assert np.abs(scaler.transform(unusual) - scaler.transform(features[:1])).max() < 4


def test_dead_features_do_not_hide_the_scale_of_the_others() -> None:
    """After a ReLU most features may be 0 throughout: the median is that of the features that vary."""
    features = np.zeros((40, 50), np.float32)
    features[:, :5] = make_features(40, 5, seed=3) + np.random.default_rng(8).normal(size=(40, 5)).astype(np.float32)
    features[0, 5] = 1e-4
    other = features[1:2].copy()
    other[0, 5] = 1.0
    scaler = fit_scaler(features)
    assert np.abs(scaler.transform(other) - scaler.transform(features[1:2])).max() < 10


def test_rounding_of_equal_features_is_no_signal() -> None:
    """Features of identical images that differ in the last bit alone say nothing about the labels."""
    random = np.random.default_rng(9)
    features = (1 + 1e-7 * random.normal(size=(30, 8))).astype(np.float32)
    labels = np.arange(30) % 2
    scaler = fit_scaler(features)
    head = scaler.fold_into(
        solve_head(make_problem(scaler.transform(features), np.eye(2)[labels], "single_label"), 1.0)
    )
    assert np.abs(head.compute_logits(features + 0.1)).max() < 1


def test_folding_gives_the_same_logits_on_plain_features() -> None:
    """The standardisation disappears in kernel and bias."""
    features = make_features(20, 50)
    scaler = fit_scaler(features)
    width = scaler.transform(features).shape[1]
    head = LinearHead(np.random.default_rng(6).normal(size=(width, 3)), np.array([0.1, -0.2, 0.3]))
    plain = scaler.fold_into(head)
    expected = head.compute_logits(scaler.transform(features))
    assert features.astype(np.float64) @ plain.kernel + plain.bias == pytest.approx(expected, abs=1e-3)
