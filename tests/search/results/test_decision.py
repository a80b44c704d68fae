"""The sentences that say why a bake-off chose its winner."""

import pytest

from imagetune.recipe.sections.search import SearchConfig
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.results.bakeoff import BackboneResult
from imagetune.search.results.decision import describe_decision

BEST, SECOND = Trial("001-1", {}, phase="final"), Trial("002-1", {}, phase="final")


def backbone(number, name, value, *, milliseconds, tuned=(), difference=None):
    probe = {"value": value, "cost": {"milliseconds_one": {"value": milliseconds}}}
    result = TrialResult(Trial(number, {}), "completed", value, 0.0, 1.0)
    return BackboneResult(result, name, probe, difference, fine_tuned=tuned)


@pytest.fixture
def rows():
    return [
        backbone("001", "large", 0.9, milliseconds=50.0, tuned=(0.9,)),
        backbone("002", "small", 0.8, milliseconds=5.0, tuned=(0.95,), difference=(-0.1, -0.2, 0.05)),
    ]


def describe(rows, winner, **keys):
    return describe_decision(rows, winner, SearchConfig(algorithm="bakeoff", objective="f1", **keys))


def test_the_best_probe_is_compared_with_the_next(rows):
    text = describe(rows, BEST)
    assert "large has the best probe of 2 candidates. The next is small: -0.1000" in text
    assert "not statistically significant" in text
    assert "gained nothing over the solved head" in text


def test_a_backbone_that_is_ahead_only_after_fine_tuning_says_so(rows):
    assert describe(rows, SECOND) == (
        "small has probe number 2 of 2, and is ahead after fine-tuning. Fine-tuning changed its f1 by +0.1500."
    )


def test_a_limit_of_latency_says_how_many_keep_it(rows):
    assert describe(rows, SECOND, max_latency_ms=10.0).startswith("1 of 2 candidates take at most 10 ms for an image.")


def test_a_preference_says_among_which_it_chose(rows):
    assert "quickest of those within one standard error" in describe(rows, SECOND, prefer="speed")


def test_without_a_fine_tuning_it_says_that_there_was_none(rows):
    alone = [backbone("001", "large", 0.9, milliseconds=5.0)]
    assert describe(alone, Trial("001", {})).endswith("There was no time to fine-tune it before.")
    assert describe(alone, Trial("001", {}), finalists=0).endswith("No fine-tuning was asked for.")


def test_a_latency_that_nothing_keeps_is_said(rows):
    assert describe(rows, BEST, max_latency_ms=1.0).startswith("No candidate takes at most 1 ms")
