import json

import numpy as np
import pytest

from imagetune.export.scores import compare_scores
from imagetune.model.out_of_distribution import OutOfDistribution

RULE = OutOfDistribution(score="energy", threshold=2.0, share=0.05)
SCORES = np.random.default_rng(0).normal(size=400)


def test_equal_scores_can_be_used():
    found = compare_scores(RULE, SCORES, SCORES + 1e-4)
    assert (found["flag_agreement"], found["problem"]) == (1.0, "")
    assert found["rank_correlation"] == pytest.approx(1)


def test_scores_that_flag_other_images_can_not_be_used():
    problem = compare_scores(RULE, SCORES, SCORES + 1)["problem"]
    assert problem.startswith("of the compared images 1")
    assert "by the Keras model" in problem


def test_a_score_that_never_moves_can_not_be_used_though_it_flags_as_few():
    quiet = compare_scores(RULE, np.minimum(SCORES, 1.9), np.zeros(400))
    assert quiet["flag_agreement"] == 1.0
    assert "its scores order the compared images otherwise (rank correlation 0.00)" in quiet["problem"]


def test_an_export_has_the_rule_of_its_run_and_says_how_its_scores_agree(litert, wide_run):
    of_run, of_export = (json.loads((one / "manifest.json").read_text()) for one in (wide_run / "model", litert))
    assert of_export["out_of_distribution"] == of_run["out_of_distribution"]
    found = json.loads((litert / "parity.json").read_text())["out_of_distribution"]
    assert (found["flag_agreement"], found["problem"]) == (1.0, "")
