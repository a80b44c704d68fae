import numpy as np
import pytest

from imagetune.errors import DataError
from imagetune.training.objectives.class_weights import class_weights, compute_sampling_shares, compute_sampling_weights


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = ["a"] * 6 + ["b"] * 3 + ["c"]
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(labels))
    np.testing.assert_allclose(class_weights("balanced", np.array([6, 3, 1]), ("a", "b", "c")), expected, rtol=1e-6)


def test_classes_left_unsaid_weigh_one():
    np.testing.assert_array_equal(class_weights({"b": 2.5}, np.array([1, 1]), ("a", "b")), [1.0, 2.5])


def test_a_weight_for_a_class_that_does_not_exist_is_refused():
    with pytest.raises(DataError, match="no class is called 'dgo'; did you mean 'dog'"):
        class_weights({"dgo": 2.0}, np.array([1, 1]), ("cat", "dog"))


def test_no_weights_by_default():
    assert class_weights("none", np.array([1]), ("a",)) is None


def test_effective_numbers_lie_between_equal_and_balanced():
    counts = np.array([1000, 100, 10])
    names = ("a", "b", "c")
    gentle = class_weights("effective_number", counts, names)
    hard = class_weights("balanced", counts, names)
    assert 1 < gentle[2] / gentle[0] < hard[2] / hard[0]
    assert (gentle * counts).sum() == pytest.approx(counts.sum())


@pytest.mark.parametrize(
    ("setting", "expected"),
    [("natural", [0.9, 0.1, 0.0]), ("balanced", [0.5, 0.5, 0.0]), ("square_root", [0.75, 0.25, 0.0])],
)
def test_sampling_shares(setting, expected):
    np.testing.assert_allclose(compute_sampling_shares(setting, np.array([90, 10, 0])), expected)


def test_images_of_a_class_share_its_probability():
    chances = compute_sampling_weights("balanced", ["a", "a", "a", "b"], ("a", "b"))
    np.testing.assert_allclose(chances, [1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert compute_sampling_weights("natural", ["a"], ("a",)) is None
