from __future__ import annotations

import pytest

from imagetune.recipe.loading import load_recipe
from imagetune.search.results.findings import describe_plan


@pytest.fixture
def line(tmp_path):
    def line(search):
        path = tmp_path / "r.yaml"
        stage = "{name: head, epochs: 2, learning_rate: {search: log_uniform, low: 1e-4, high: 1e-2}}"
        path.write_text(f"data: {{source: x}}\ntrain: {{stages: [{stage}]}}\nsearch: {search}\n")
        return describe_plan(load_recipe(path))

    return line


def test_hyperband_says_when_no_trial_can_drop_out(line):
    topic, text = line("{algorithm: hyperband}")
    assert topic == "note"
    assert "with 2 epochs and search.factor 3 hyperband has one rung, from which no trial drops out" in text
    assert "raise search.max_epochs" in text
    assert "with 1 epoch and" in line("{algorithm: hyperband, max_epochs: 1, factor: 2}")[1]
    assert line("{algorithm: hyperband, factor: 2}") is None
    assert line("{algorithm: hyperband, max_epochs: 9}") is None


def test_what_the_recipe_says_is_not_said_again(line):
    assert line("{algorithm: random, trials: 3}") is None
