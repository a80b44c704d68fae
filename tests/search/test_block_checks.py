from __future__ import annotations

import pytest

from imagetune.errors import RecipeError
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.search import block_checks
from imagetune.search.block_checks import check_blocks

TEXT = """\
data: {{source: x, image_size: 64}}
model: {{backbone: {backbone}}}
train:
  stages:
    - {{name: head, epochs: 1, learning_rate: 1e-3}}
    - {{name: top, epochs: 1, learning_rate: 1e-4, unfreeze: {unfreeze}}}
"""
LITE = "efficientnet_lite0"


@pytest.fixture
def loaded(tmp_path):
    def loaded(unfreeze, backbone=LITE):
        path = tmp_path / "r.yaml"
        path.write_text(TEXT.format(unfreeze=unfreeze, backbone=backbone))
        return load_checked_recipe(path)

    return loaded


@pytest.mark.slow
def test_blocks_that_there_are_pass(loaded):
    check_blocks(loaded("{search: choice, values: [last 2 blocks, block5, [block6, 'block7*'], all, last 30%]}"))


def test_every_value_with_a_block_that_there_is_not_is_named_where_it_stands(loaded, tmp_path):
    with pytest.raises(RecipeError) as caught:
        check_blocks(loaded("{search: choice, values: [none, blok5, last 2 blocks, last 99 blocks]}"))
    first, second = caught.value.lines()
    assert first.startswith(f"error[recipe] {tmp_path / 'r.yaml'}:6:93 train.stages[1].unfreeze: ")
    assert "has no block or layer 'blok5'" in first
    assert "did you mean 'block5'?" in first
    assert "6:115 train.stages[1].unfreeze: last 99 blocks: efficientnet_lite0 has 9" in second


@pytest.mark.slow
def test_a_block_that_only_another_backbone_lacks_names_that_backbone(loaded):
    backbones = f"{{search: choice, values: [{LITE}, resnet50]}}"
    with pytest.raises(RecipeError, match='tried with model.backbone: "resnet50"') as caught:
        check_blocks(loaded("block7", backbones))
    assert len(caught.value.lines()) == 1


@pytest.mark.slow
def test_this_process_builds_nothing(loaded, monkeypatch):
    monkeypatch.setattr("imagetune.model.build.build_backbone", lambda *_: pytest.fail("built"))
    check_blocks(loaded("last 2 blocks"))


def test_no_process_starts_where_no_block_is_named(loaded, monkeypatch):
    monkeypatch.setattr(block_checks, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("started"))
    check_blocks(loaded("{search: choice, values: [none, all, last 30%]}"))
