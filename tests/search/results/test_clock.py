import pytest

from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.results.clock import build_clock


def ran(began, seconds):
    return TrialResult(Trial("001", {}), "completed", 0.5, began, seconds)


def test_time_between_sessions_does_not_count():
    clock = build_clock([ran(1000, 60), ran(1030, 60), ran(90_000, 10), ran(50, 0)])
    assert clock.total == pytest.approx(100)
    assert clock.seconds(1000) == 0
    assert clock.seconds(1045) == pytest.approx(45)
    assert clock.seconds(50_000) == pytest.approx(90)
    assert clock.seconds(90_005) == pytest.approx(95)
    assert clock.pauses == (pytest.approx(90),)


def test_no_trial_no_time():
    assert build_clock([]).total == 0
