"""The page of the benchmark of a search, without running one."""

from types import SimpleNamespace

from benchmarks.search import OURS, PLAIN, Search, page
from benchmarks.side_by_side import Comparison
from imagetune.recipe.schema import Recipe

ARGUMENTS = SimpleNamespace(
    size=224, epochs=10, algorithm="bayesian", trials=3, parallel="auto", early_stop="median", longest_plain=3
)
ROWS = [
    {"trial": "001", "phase": "search", "status": "completed", "seconds": "30.0"},
    {"trial": "002", "phase": "search", "status": "stopped", "seconds": "2.0"},
    {"trial": "003", "phase": "search", "status": "completed", "seconds": "4.0"},
    {"trial": "004", "phase": "search", "status": "repeated", "seconds": "0.0"},
]


def test_the_requirement_is_the_time_of_the_plain_script(tmp_path):
    text = page(Search(ARGUMENTS, tmp_path, ROWS), Comparison({PLAIN: [100.0], OURS: [50.0]}))
    assert "0.5 of the time of the plain script; required is 1, met." in text
    assert "The plain script ran for 3 epochs" in text
    assert "2 completed, 1 stopped, 1 repeated; the first took 30.0 s, the others 3.00 s in the middle" in text
    text = page(Search(ARGUMENTS, tmp_path, ROWS), Comparison({PLAIN: [100.0], OURS: [101.0]}))
    assert "required is 1, missed." in text


def test_what_is_searched_are_heads_on_features_that_stay_the_same(tmp_path):
    import yaml

    from imagetune.recipe.loading import load_recipe

    path = tmp_path / "search.yaml"
    path.write_text(yaml.safe_dump(Search(ARGUMENTS, tmp_path).recipe()), encoding="utf-8")
    loaded = load_recipe(path)
    assert isinstance(loaded.recipe, Recipe)
    assert [stage.unfreeze for stage in loaded.recipe.train.stages] == ["none"]
    assert {path[0] for path in loaded.spaces} == {"model", "train"}
    assert len(loaded.spaces) == 4
