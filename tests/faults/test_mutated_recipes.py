"""No mutated recipe is a bug, takes long, takes much memory or runs anything."""

import pytest

from tests.faults.attack.mutated_recipes import meet


@pytest.mark.parametrize(
    "numbers", [range(100), pytest.param(range(100, 2000), marks=pytest.mark.slow)], ids=["100", "1900 more"]
)
def test_mutated_recipes_end_in_plain_words(numbers, tmp_path):
    wrong, codes, _ = meet(numbers, tmp_path)
    assert not wrong
    # They are recipes: not all of them are refused at their first sign.
    assert codes[0]
