import pytest

from imagetune.core.text import duration


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "0 s"), (89, "89 s"), (600, "10 min"), (3 * 3600, "3 h 0 min")])
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text
