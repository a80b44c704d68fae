"""The recipe of `imagetune auto`."""

import pytest

from imagetune.commands.auto import AutoOptions, build_auto_recipe, find_auto_recipe
from imagetune.errors import WeightsError
from imagetune.recipe.loading import load_recipe


def test_it_is_a_bake_off_of_the_backbones_whose_weights_are_here_the_cheapest_first(tmp_path):
    loaded = load_recipe(build_auto_recipe(tmp_path / "my photos", AutoOptions(seconds=900)))
    assert loaded.recipe.name == "auto-my-photos"
    assert loaded.recipe.data.source == str(tmp_path / "my photos")
    backbones = loaded.spaces["model", "backbone"].values
    assert backbones[:3] == ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
    search = loaded.recipe.search
    assert (search.algorithm, search.budget.hours, search.prefer) == ("bakeoff", 0.25, "accuracy")


def test_small_images_are_tried_only_by_those_who_need_speed(tmp_path):
    def sizes(**options):
        return build_auto_recipe(tmp_path, AutoOptions(**options))["data"]["image_size"]["values"]

    assert 160 not in sizes()
    assert 160 in sizes(prefer="speed")
    assert 160 in sizes(max_latency_ms=5.0)


def test_resuming_takes_the_recipe_of_then(tmp_path):
    (tmp_path / "recipe.yaml").write_text(f"data: {{source: {tmp_path}}}")
    assert find_auto_recipe(tmp_path, run_dir=tmp_path, resume=True) == tmp_path / "recipe.yaml"


def test_without_weights_it_says_how_to_get_some(monkeypatch, tmp_path):
    monkeypatch.setattr("imagetune.commands.auto.weights_state", lambda backbone, verify: "absent")
    with pytest.raises(WeightsError) as caught:
        find_auto_recipe(tmp_path)
    assert "imagetune weights fetch" in caught.value.hint
