import pytest

from imagetune.core.multiple_testing import adjust_p_values


def test_holm_is_the_published_procedure():
    # The example of Wikipedia's article: at 5% the first and the fourth are rejected.
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_p_values([0.6, 0.7]) == [1.0, 1.0]
    assert adjust_p_values([]) == []
