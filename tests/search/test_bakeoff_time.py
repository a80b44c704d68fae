"""Whether the time of a bake-off is enough for one more trial."""

from imagetune.search.bakeoff_time import has_time_for_fine_tuning, has_time_for_probe
from imagetune.search.records.trial import Trial, TrialResult


def probe(seconds):
    return TrialResult(Trial("001", {}), "completed", 1.0, 0.0, seconds)


def fine_tuning(seconds):
    return TrialResult(Trial("001-1", {}, phase="final"), "completed", 1.0, 0.0, seconds)


def test_the_first_probe_always_starts():
    assert has_time_for_probe([], 1.0)


def test_a_probe_starts_only_if_the_refit_still_fits():
    # A longer probe, then a refit of six times a probe's seconds.
    assert has_time_for_probe([probe(10.0)], 80.0)
    assert not has_time_for_probe([probe(10.0)], 75.0)


def test_a_fine_tuning_is_expected_to_take_as_long_as_those_before():
    assert not has_time_for_fine_tuning([probe(10.0)], 90.0)
    assert has_time_for_fine_tuning([probe(10.0), fine_tuning(30.0)], 90.0)
