"""Time of a bake-off: whether what is left of it is enough for one more probe, or for one more fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from imagetune.search.records.trial import TrialResult

# A fine-tuning lasts so many times as long as its backbone's probe, until one has been timed: `stages: auto` computes
# features of four versions of each image, and trains a few epochs of the last blocks.
_FINE_TUNING_FOR_PROBE = 4.0
# The next probe may be so much longer than the longest one: image sizes rise, and a step up is 1.7 times the pixels.
_NEXT_PROBE = 1.7
# The refit is a fine-tuning with a test, its explanations and its report.
_REFIT = 1.5


def has_time_for_probe(results: Sequence[TrialResult], seconds_left: float) -> bool:
    """Return whether a probe and the refit will probably fit into the time that is left.

    Where it is short, fine-tunings give way: on most sets of the benchmark another image size gains more.
    """
    return _NEXT_PROBE * _longest(results, "search") + _REFIT * _expect_fine_tuning(results) <= seconds_left


def has_time_for_fine_tuning(results: Sequence[TrialResult], seconds_left: float) -> bool:
    """Return whether a fine-tuning and the refit will probably fit into the time that is left."""
    return (1 + _REFIT) * _expect_fine_tuning(results) <= seconds_left


def _expect_fine_tuning(results: Sequence[TrialResult]) -> float:
    return _longest(results, "final") or _FINE_TUNING_FOR_PROBE * _longest(results, "search")


def _longest(results: Sequence[TrialResult], phase: str) -> float:
    return max((result.seconds for result in results if result.trial.phase == phase), default=0.0)
