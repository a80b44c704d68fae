from __future__ import annotations

import pytest

from imagetune.search.report.parallel_coordinates import _wrapped


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("learning_rate", ["learning_", "rate"]),
        ("HorizontalFlip.p", ["Horizontal", "Flip.p"]),
        ("RandomBrightnessContrast.p", ["Random", "Brightness", "Contrast.p"]),
        ("mix", ["mix"]),
    ],
)
def test_the_name_of_an_axis_is_broken_between_its_words(name, lines):
    assert _wrapped(name, 12) == lines


def test_a_name_without_words_is_cut_after_three_lines():
    lines = _wrapped("x" * 60, 12)
    assert len(lines) == 3
    assert lines[-1].endswith("…")
    assert max(map(len, lines)) <= 13
