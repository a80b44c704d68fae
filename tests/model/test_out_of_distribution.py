import numpy as np
import pytest
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf

from imagetune.core.files import compute_file_sha256
from imagetune.errors import ModelFileError
from imagetune.model.out_of_distribution import (
    STATISTICS,
    Detector,
    FeatureStatistics,
    OutOfDistribution,
    compute_energies,
    feature_statistics,
    read_detector,
    write_statistics,
)


def test_energy_is_minus_the_log_of_the_summed_exponentials():
    logits = np.random.default_rng(0).normal(size=(20, 5)) * 100
    assert compute_energies(logits, "single_label") == pytest.approx(-logsumexp(logits, axis=1))
    assert compute_energies(np.array([[0.0, 0.0]]), "ordinal") == pytest.approx([-np.log(2)])


def test_energy_of_several_labels_is_summed_over_them():
    logits = np.array([[0.0, 0.0], [5.0, -5.0]])
    assert compute_energies(logits, "multi_label") == pytest.approx(-np.log1p(np.exp(logits)).sum(axis=1))


def test_numbers_have_no_energy():
    with pytest.raises(ValueError, match="no energy"):
        compute_energies(np.zeros((1, 1)), "regression")


@pytest.mark.parametrize(("count", "width"), [(200, 12), (40, 90)])
def test_distances_are_those_of_scikit_learns_shrunk_covariance(count, width):
    """With more images than features, and with fewer."""
    random = np.random.default_rng(0)
    classes = np.arange(count) % 3
    features = random.normal(size=(count, width)) @ random.normal(size=(width, width)) + 5.0 * classes[:, None]
    asked = random.normal(size=(30, width)) * 10
    unit, asked_unit = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (features, asked))
    means = np.stack([unit[classes == code].mean(axis=0) for code in range(3)])
    covariance = LedoitWolf(assume_centered=True).fit(unit - means[classes])
    gaps = asked_unit[:, None] - means
    expected = np.einsum("mki,ij,mkj->mk", gaps, covariance.precision_, gaps).min(axis=1)
    found = feature_statistics(features, classes).distances(asked)
    assert found == pytest.approx(expected, rel=2e-3)


def test_without_classes_there_is_one_mean():
    features = np.random.default_rng(0).normal(size=(50, 4)) + 3
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    assert feature_statistics(features, None).means == pytest.approx(unit.mean(axis=0, keepdims=True), rel=1e-5)


def test_the_length_of_features_does_not_matter():
    features = np.random.default_rng(0).normal(size=(50, 4)) + 3
    found = feature_statistics(features, None)
    assert found.distances(features * 7) == pytest.approx(found.distances(features))


def test_features_that_never_vary_give_finite_distances():
    found = feature_statistics(np.ones((10, 3)), None)
    assert np.isfinite(found.distances(np.array([[1.0, 1.0, 1.0], [2.0, 1.0, 1.0]]))).all()


def _rule(**values):
    return OutOfDistribution(**{"score": "mahalanobis", "threshold": 4.0, "share": 0.05, **values})


def test_statistics_come_back_as_they_were_written(tmp_path):
    features = np.random.default_rng(0).normal(size=(30, 8))
    statistics = feature_statistics(features, np.arange(30) % 2)
    digest = write_statistics(statistics, tmp_path)
    detector = read_detector(tmp_path, _rule(statistics_sha256=digest), width=8, outputs=2)
    scores = detector.scores(features, "single_label")
    assert (scores == statistics.distances(features)).all()
    assert (detector.flagged(scores) == (scores > 4)).all()


def test_energy_needs_no_file(tmp_path):
    detector = read_detector(tmp_path, _rule(score="energy", threshold=-1.0), width=8, outputs=2)
    assert detector == Detector(_rule(score="energy", threshold=-1.0))
    assert detector.flagged(detector.scores(np.array([[0.0, 0.0], [3.0, 0.0]]), "single_label")).tolist() == [
        True,
        False,
    ]


def test_missing_and_replaced_statistics_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match="missing"):
        read_detector(tmp_path, _rule(statistics_sha256="0" * 64), width=2, outputs=1)
    statistics = FeatureStatistics(np.zeros((1, 2), "f4"), np.eye(2, dtype="f4"), np.ones(2, "f4"), 1.0)
    digest = write_statistics(statistics, tmp_path)
    path = tmp_path / STATISTICS
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ModelFileError, match="replaced"):
        read_detector(tmp_path, _rule(statistics_sha256=digest), width=2, outputs=1)


GOOD = {
    "means": np.zeros((3, 4), "f4"),
    "directions": np.eye(4, dtype="f4"),
    "variances": np.ones(4, "f4"),
    "rest": 1.0,
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"means": np.zeros((3, 5), "f4")}, "the model has 4 features"),
        ({"means": np.zeros(4, "f4")}, "the model has 4 features"),
        ({"variances": np.ones(3, "f4")}, "4 directions with 3 variances"),
        ({"variances": np.zeros(4, "f4")}, "not above 0"),
        ({"rest": np.inf}, "not above 0"),
        ({"directions": np.full((4, 4), np.nan, "f4")}, "not finite"),
        ({"means": np.array([["a"] * 4])}, "no numbers"),
        ({"means": np.array([[None] * 4])}, "states an array that it doesn't hold"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(tmp_path, changed, message):
    np.savez(tmp_path / STATISTICS, **GOOD | changed)
    digest = compute_file_sha256(tmp_path / STATISTICS)
    with pytest.raises(ModelFileError, match=message):
        read_detector(tmp_path, _rule(statistics_sha256=digest), width=4, outputs=3)


def test_statistics_larger_than_the_model_has_room_for_are_refused(tmp_path):
    np.savez(tmp_path / STATISTICS, **GOOD | {"means": np.zeros((100_000, 4), "f4")})
    digest = compute_file_sha256(tmp_path / STATISTICS)
    with pytest.raises(ModelFileError, match="replaced"):
        read_detector(tmp_path, _rule(statistics_sha256=digest), width=4, outputs=3)
