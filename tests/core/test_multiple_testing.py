import pytest

from imagetune.core.multiple_testing import holm


def test_holm_is_the_published_procedure():
    # The example of Wikipedia's article: at 5% the first and the fourth are rejected.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []
