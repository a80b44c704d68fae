"""The codes of findings in a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from imagetune.errors import RecipeError
from imagetune.runs.checks.recipe import load_checked_recipe

RECIPE = """\
name: x
data:
  source: .
  audit:
    fail_on: [{fail_on}]
    allow: [{allow}]
model: {{backbone: efficientnet_lite0}}
train: {{stages: linear_probe}}
"""


def check(folder: Path, *, fail_on: str = "", allow: str = "") -> None:
    (folder / "recipe.yaml").write_text(RECIPE.format(fail_on=fail_on, allow=allow))
    load_checked_recipe(folder / "recipe.yaml")


def test_known_codes_are_fine(tmp_path):
    check(tmp_path, fail_on="blurred, leak", allow="shortcut-colour")


def test_an_unknown_code_is_named_with_its_place_and_the_nearest(tmp_path):
    with pytest.raises(RecipeError) as caught:
        check(tmp_path, fail_on="leak, blured", allow="qqqq")
    first, second = caught.value.lines()
    assert "recipe.yaml:5:21 data.audit.fail_on[1]: no finding has the code 'blured'; did you mean 'blurred'?" in first
    assert "data.audit.allow[0]" in second
    assert "imagetune data check --codes" in second


def test_one_code_cannot_be_allowed_and_fail(tmp_path):
    with pytest.raises(RecipeError, match="'leak' is in fail_on as well"):
        check(tmp_path, fail_on="leak", allow="leak")
