import numpy as np
import pytest

from imagetune.errors import DataError
from imagetune.training.feed import class_weights


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    labels = ["a"] * 6 + ["b"] * 3 + ["c"]
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=np.array(labels))
    np.testing.assert_allclose(class_weights("balanced", labels, ("a", "b", "c")), expected, rtol=1e-6)


def test_classes_left_unsaid_weigh_one():
    np.testing.assert_array_equal(class_weights({"b": 2.5}, [], ("a", "b")), [1.0, 2.5])


def test_a_weight_for_a_class_that_does_not_exist_is_refused():
    with pytest.raises(DataError, match="no class is called 'dgo'; did you mean 'dog'"):
        class_weights({"dgo": 2.0}, [], ("cat", "dog"))


def test_no_weights_by_default():
    assert class_weights("none", ["a"], ("a",)) is None
