import pytest

from imagetune.errors import RecipeError
from imagetune.recipe.conditions import find_activating_values, select_active, sort_by_conditions
from imagetune.recipe.loading import load_recipe

DEPTH = ("train", "stages", 1, "unfreeze")
DECAY = ("train", "stages", 1, "layer_decay")
NORM = ("train", "stages", 1, "batch_norm")
TEXT = """\
data: {{source: x}}
train:
  stages:
    - {{name: head, epochs: 1, learning_rate: 1e-3}}
    - name: top
      epochs: 1
      learning_rate: 1e-4
      layer_decay: {{search: uniform, low: 0.5, high: 0.9, default: 0.7, when: {when}}}
      batch_norm: {{search: choice, values: [frozen, train], when: {{train.stages.1.unfreeze: all}}}}
      unfreeze: {{search: choice, values: [none, last 3 blocks, all]}}
"""
TOGETHER = "{train.stages.1.unfreeze: [last 3 blocks, all]}"
CHAIN = "{'train.stages[1].batch_norm': train}"


@pytest.fixture
def load(tmp_path):
    def load(when, *overrides):
        path = tmp_path / "r.yaml"
        path.write_text(TEXT.format(when=when))
        return load_recipe(path, overrides)

    return load


@pytest.mark.parametrize(("depth", "searched"), [("none", False), ("last 3 blocks", True), ("all", True)])
def test_a_space_is_in_force_where_its_condition_is_met(load, depth, searched):
    values = {DEPTH: depth, DECAY: 0.6, NORM: "train"}
    assert (DECAY in select_active(load(TOGETHER).spaces, values)) == searched


def test_a_space_whose_condition_is_not_in_force_is_not_either(load):
    spaces = load(CHAIN).spaces
    assert sort_by_conditions(spaces) == [DEPTH, NORM, DECAY]
    assert list(select_active(spaces, {DEPTH: "all", NORM: "train", DECAY: 0.6})) == [DECAY, NORM, DEPTH]
    assert list(select_active(spaces, {DEPTH: "all", NORM: "frozen", DECAY: 0.6})) == [DEPTH, NORM][::-1]
    assert list(select_active(spaces, {DEPTH: "none", NORM: "train", DECAY: 0.6})) == [DEPTH]


def test_several_conditions_must_all_be_met(load):
    spaces = load("{train.stages.1.unfreeze: [last 3 blocks, all], train.stages.1.batch_norm: frozen}").spaces
    assert DECAY in select_active(spaces, {DEPTH: "all", NORM: "frozen", DECAY: 0.6})
    assert DECAY not in select_active(spaces, {DEPTH: "all", NORM: "train", DECAY: 0.6})
    assert DECAY not in select_active(spaces, {DEPTH: "last 3 blocks", DECAY: 0.6})


def test_the_fewest_values_that_bring_a_space_into_force(load):
    spaces = load(CHAIN).spaces
    assert find_activating_values(spaces, DECAY, 0.6) == {DEPTH: "all", NORM: "train", DECAY: 0.6}
    assert find_activating_values(spaces, DEPTH, "none") == {DEPTH: "none"}


def test_a_setting_without_a_space_keeps_its_default(load):
    loaded = load(TOGETHER)
    tried = loaded.with_values({DEPTH: "none"}).recipe.train.stages[1]
    assert (tried.unfreeze, tried.layer_decay, tried.batch_norm) == ("none", 0.7, "frozen")


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("{train.stages.1.unfreze: all}", "not a search space; did you mean 'train.stages[1].unfreeze'?"),
        ("{train.stages.1.epochs: 1}", "'train.stages.1.epochs', which is 1, not a search space; did you mean"),
        (
            "{train.stages.1.unfreeze: [al]}",
            "'al' is not among the values of train.stages.1.unfreeze; did you mean 'all'?",
        ),
        ("{train.stages.1.layer_decay: 0.5}", "is searched by uniform"),
        ("{train.stages.1.batch_norm: true}", "true is not among the values of train.stages.1.batch_norm; available: "),
    ],
)
def test_a_condition_that_cannot_be_is_named_with_its_place(load, tmp_path, when, message):
    with pytest.raises(RecipeError) as caught:
        load(when)
    (line,) = caught.value.lines()
    assert line.startswith(f"error[recipe] {tmp_path / 'r.yaml'}:8:80 train.stages[1].layer_decay: ")
    assert message in line


def test_conditions_in_a_cycle_are_refused(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "data:\n  source: x\n"
        "  resize: {search: choice, values: [pad, crop], when: {data.augmentation: none}}\n"
        "  augmentation: {search: choice, values: [none, light], when: {data.resize: pad}}\n"
    )
    with pytest.raises(RecipeError, match="form a cycle back to itself") as caught:
        load_recipe(path)
    assert [line.split(" ")[1].rsplit(":", 2)[1] for line in caught.value.lines()] == ["3", "4"]


@pytest.mark.parametrize(
    ("fixed", "left"),
    [("all", [DECAY, NORM]), ("last 3 blocks", [DECAY]), ("none", [])],
)
def test_an_override_settles_the_conditions_that_name_it(load, fixed, left):
    loaded = load(TOGETHER, f"train.stages.1.unfreeze={fixed}")
    assert list(loaded.spaces) == left
    assert all(not space.when for space in loaded.spaces.values())
    assert loaded.recipe.train.stages[1].layer_decay == 0.7


def test_an_override_takes_out_what_depended_on_a_space_that_it_took_out(load):
    assert list(load(CHAIN, "train.stages.1.unfreeze=none").spaces) == []
    assert list(load(CHAIN, "train.stages.1.unfreeze=all").spaces) == [DECAY, NORM]


def test_a_condition_of_the_only_space_has_nothing_to_name(tmp_path):
    path = tmp_path / "r.yaml"
    space = "{search: choice, values: [8, 16], when: {train.epochs: 3}}"
    path.write_text(f"data: {{source: x}}\ntrain: {{batch_size: {space}}}\n")
    with pytest.raises(RecipeError, match="which is not a search space; leave `when` out: nothing else is searched"):
        load_recipe(path)


def test_a_condition_may_name_a_wide_range_of_whole_numbers(tmp_path):
    path = tmp_path / "r.yaml"
    text = (
        "data: {{source: x, cache_gib: {{search: choice, values: [8.0, 9.0], when: {{train.batch_size: {value}}}}}}}\n"
    )
    space = "train: {batch_size: {search: int, low: 1, high: 1000000000}}\n"
    path.write_text(text.format(value=1000) + space)
    assert len(load_recipe(path).spaces) == 2
    path.write_text(text.format(value=0) + space)
    with pytest.raises(
        RecipeError, match=r"0 is not among the values of train.batch_size; available: 1, 2, 3, .*\.\.\."
    ):
        load_recipe(path)


def test_conditions_of_conditions_are_followed_once_each(tmp_path):
    def when(index):
        return "".join(f"train.class_weights.c{above}: 1.0, " for above in range(max(0, index - 20), index))

    spaces = ", ".join(
        f"c{index}: {{search: choice, values: [1.0, 2.0], when: {{{when(index)}}}}}" for index in range(60)
    )
    path = tmp_path / "r.yaml"
    path.write_text(f"data: {{source: x}}\ntrain: {{class_weights: {{{spaces}}}}}\n")
    last = ("train", "class_weights", "c59")
    # Along every way through them there are some 2 ** 60 of them.
    assert len(find_activating_values(load_recipe(path).spaces, last, 1.0)) == 60


def test_more_spaces_than_anybody_searches_are_refused(tmp_path):
    spaces = ", ".join(f"c{index}: {{search: uniform, low: 1.0, high: 2.0}}" for index in range(65))
    path = tmp_path / "r.yaml"
    path.write_text(f"data: {{source: x}}\ntrain: {{class_weights: {{{spaces}}}}}\n")
    with pytest.raises(RecipeError, match="c64: 65 search spaces, and the most is 64"):
        load_recipe(path)
