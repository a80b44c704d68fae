import json
import os
import re
import traceback
import unicodedata
from pathlib import Path

import pytest

from imagetune.errors import RecipeError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import format_recipe, json_schema
from imagetune.recipe.sections.search import LogUniformSpace

MINIMAL = "data: {source: images}\n"


@pytest.fixture
def write(tmp_path):
    def write(text, name="flowers.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def errors_of(path, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return caught.value.lines()


def test_a_minimal_recipe_gets_every_default(write, tmp_path):
    recipe = load_recipe(write(MINIMAL)).recipe
    assert recipe.name == "flowers"
    assert recipe.data.source == str(tmp_path / "images")
    assert [stage.name for stage in recipe.train.stages] == ["head", "top"]
    assert recipe.train.stages[0].learning_rate >= 10 * recipe.train.stages[1].learning_rate


def test_all_mistakes_are_reported_in_the_order_of_the_file(write):
    path = write(
        "data:\n  source: x\n  image_siz: 160\n  resize: padd\n"
        "train:\n  batch_size: 0\n  optimizer: adamm\n  stages:\n"
        "    - {name: head, unfreeze: last 0 blocks, epochs: true, lr: 1e-3, learning_rate: .nan}\n"
        "model: {head: {dropout: 1.5}}\n"
    )
    assert [line.removeprefix(f"error[recipe] {path}:") for line in errors_of(path)] == [
        "3:3 data.image_siz: unknown key; did you mean 'image_size'?",
        "4:3 data.resize: 'padd' is wrong: expected 'pad', 'crop' or 'squash'; did you mean 'pad'?",
        "6:3 train.batch_size: 0 is wrong: expected at least 1 or 'auto'",
        "7:3 train.optimizer: 'adamm' is wrong: expected 'adamw', 'adam', 'sgd', 'rmsprop' or 'lion'; "
        "did you mean 'adam'?",
        "9:20 train.stages[0].unfreeze: 'last 0 blocks' trains nothing: write `none`",
        "9:45 train.stages[0].epochs: true is wrong: expected a whole number",
        "9:59 train.stages[0].lr: unknown key; did you mean 'learning_rate'?",
        "9:69 train.stages[0].learning_rate: nan is wrong: expected a finite number or 'auto'",
        "10:16 model.head.dropout: 1.5 is wrong: expected at most 1.0",
    ]


def test_a_missing_key_is_named(write):
    (line,) = errors_of(write("seed: 1\n"))
    assert line.endswith("data: is missing and has no default; add `data:`")


def test_numbers_and_words_keep_their_kind(write):
    recipe = load_recipe(
        write("data: {source: x, classes: [yes, no, 00123]}\ntrain: {optimizer: {weight_decay: 1e-4}}\n")
    ).recipe
    assert recipe.data.classes == ("yes", "no", "00123")
    assert recipe.train.optimizer.weight_decay == 1e-4


@pytest.mark.parametrize("value", [".nan", ".inf", "-0.1", "true", "'0.1'"])
def test_a_learning_rate_must_be_a_positive_finite_number(write, value):
    path = write(f"data: {{source: x}}\ntrain: {{stages: [{{name: a, epochs: 1, learning_rate: {value}}}]}}\n")
    (line,) = errors_of(path)
    assert f"{path}:2:" in line
    assert "train.stages[0].learning_rate" in line
    assert "expected" in line


def test_overrides_win_and_are_validated(write):
    path = write(MINIMAL)
    assert load_recipe(path, ["train.batch_size=64", "data.image_size=[96, 128]"]).recipe.data.image_size == (96, 128)
    (line,) = errors_of(path, "train.batch_size=x")
    assert line.endswith("train.batch_size: 'x' is wrong: expected a whole number or 'auto'")
    (line,) = errors_of(path, "train.batchsize=64")
    assert "did you mean 'batch_size'?" in line
    (line,) = errors_of(path, "batch_size")
    assert line == "error[recipe] -o batch_size: expected KEY=VALUE, such as -o train.batch_size=64"


def test_a_mistake_in_an_override_names_the_option_and_not_a_line_of_the_file(write):
    path = write(MINIMAL + "train: {batch_size: 8}\n")
    (line,) = errors_of(path, "train.batch_size=x")
    assert line.startswith("error[recipe] -o train.batch_size: 'x' is wrong")
    option, file = errors_of(write(MINIMAL + "train: {batch_size: no}\n"), "train.stages=[{name: a, epochs: 1}]")
    assert file.startswith(f"error[recipe] {path}:2:9 train.batch_size: ")
    assert option.startswith("error[recipe] -o train.stages[0].learning_rate: is missing")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, {"train.batchsize": 8})
    assert caught.value.where == "train.batchsize"


def test_paths_in_overrides_start_where_the_shell_is(write, tmp_path, monkeypatch):
    path = write(MINIMAL + "model: {weights: w.h5}\n")
    (tmp_path / "shell").mkdir()
    monkeypatch.chdir(tmp_path / "shell")
    loaded = load_recipe(path, ["data.source=flat", "train.teacher=runs/a", "search.warm_start=[old]"])
    assert loaded.recipe.data.source == str(tmp_path / "shell/flat")
    assert loaded.recipe.train.teacher.run == str(tmp_path / "shell/runs/a")
    assert loaded.recipe.search.warm_start == (str(tmp_path / "shell/old"),)
    assert loaded.recipe.model.weights == str(tmp_path / "w.h5")
    assert load_recipe(path, ["data={source: flat}"]).recipe.data.source == str(tmp_path / "shell/flat")
    # A trial's values are put into the same recipe.
    assert loaded.with_values({("train", "batch_size"): 4}).recipe.data.source == str(tmp_path / "shell/flat")


def test_a_folder_of_images_or_a_table_is_a_recipe_of_defaults(tmp_path, monkeypatch):
    (tmp_path / "my pets").mkdir()
    recipe = load_recipe(tmp_path / "my pets").recipe
    assert (recipe.name, recipe.data.source) == ("my-pets", str(tmp_path / "my pets"))
    monkeypatch.chdir(tmp_path / "my pets")
    assert load_recipe(".").recipe == recipe
    assert load_recipe("../pets.csv", ["seed=3"]).recipe.data.source == str(tmp_path / "pets.csv")


def test_an_override_reaches_into_a_preset(write):
    recipe = load_recipe(write(MINIMAL), ["train.stages=head_then_top", "train.stages.1.epochs=2"]).recipe
    assert [stage.epochs for stage in recipe.train.stages] == [8, 2]


def test_a_preset_takes_epochs_and_rate(write):
    recipe = load_recipe(write(MINIMAL), ["train.stages=lp_ft", "train.epochs=3", "train.learning_rate=2e-3"]).recipe
    assert [(stage.unfreeze, stage.epochs, stage.learning_rate) for stage in recipe.train.stages] == [
        ("none", 3, 2e-3),
        ("all", 3, 6e-5),
    ]


def test_epochs_beside_written_stages_are_refused(write):
    text = MINIMAL + "train: {epochs: 3, stages: [{name: a, epochs: 1, learning_rate: 1e-3}]}\n"
    (line,) = errors_of(write(text))
    assert "`epochs` goes with a preset's name" in line
    assert line.endswith("set train.stages[0].epochs (a)")
    assert (
        load_recipe(write(text.replace("epochs: 3, ", "")), ["train.stages[0].epochs=5"]).recipe.train.stages[0].epochs
        == 5
    )


def test_an_unknown_preset_gets_a_guess(write):
    (line,) = errors_of(write(MINIMAL), "train.stages=linear_prob")
    assert "did you mean 'linear_probe'?" in line


def test_spaces_are_replaced_by_their_defaults(write):
    loaded = load_recipe(
        write(
            "data: {source: x}\nmodel: {head: {dropout: {search: choice, values: [0.1, 0.3]}}}\n"
            "train:\n  stages: linear_probe\n"
            "  learning_rate: {search: log_uniform, low: 1e-4, high: 1e-2, default: 2e-3}\n"
        )
    )
    assert loaded.recipe.model.head.dropout == 0.1
    assert loaded.recipe.train.stages[0].learning_rate == 2e-3
    assert isinstance(loaded.spaces["train", "learning_rate"], LogUniformSpace)
    tried = loaded.with_values({("train", "learning_rate"): 5e-3, ("model", "head", "dropout"): 0.3}).recipe
    assert (tried.train.stages[0].learning_rate, tried.model.head.dropout) == (5e-3, 0.3)
    assert loaded.recipe.model.head.dropout == 0.1


@pytest.mark.parametrize(
    ("at", "values", "settled"),
    [
        (("train", "optimizer"), ["adamw", {"name": "sgd", "momentum": 0.5}], ["adamw", "sgd"]),
        (("train", "stages"), ["linear_probe", [{"name": "a", "epochs": 1, "learning_rate": 1.0}]], ["head", "a"]),
        (("train", "teacher"), [None, {"run": "/runs/a"}], [None, "/runs/a"]),
        (("data", "augmentation"), ["none", [{"HorizontalFlip": {"p": 0.5}}]], ["none", "HorizontalFlip"]),
        (("data", "image_size"), [96, [96, 128]], [96, (96, 128)]),
        (("model", "head"), [{"hidden": [8]}, {"dropout": 0.5}], [(8,), ()]),
    ],
)
def test_a_whole_section_or_list_is_one_choice(write, at, values, settled):
    look = {
        "optimizer": lambda recipe: recipe.train.optimizer.name,
        "stages": lambda recipe: recipe.train.stages[0].name,
        "teacher": lambda recipe: recipe.train.teacher and recipe.train.teacher.run,
        "augmentation": lambda recipe: (
            recipe.data.augmentation
            if isinstance(recipe.data.augmentation, str)
            else next(iter(*recipe.data.augmentation))
        ),
        "image_size": lambda recipe: recipe.data.image_size,
        "head": lambda recipe: recipe.model.head.hidden,
    }[at[1]]
    loaded = load_recipe(write(MINIMAL), [f"{'.'.join(at)}={json.dumps({'search': 'choice', 'values': values})}"])
    assert list(loaded.spaces) == [at]
    assert [look(loaded.with_values({at: value}).recipe) for value in values] == settled
    assert look(loaded.recipe) == settled[0]


def test_a_strength_within_an_augmentation_list_is_a_space(write):
    text = "data: {source: x, augmentation: [{Rotate: {limit: {search: int, low: 5, high: 45}, p: 0.5}}]}\n"
    loaded = load_recipe(write(text))
    (path,) = loaded.spaces
    assert path == ("data", "augmentation", 0, "Rotate", "limit")
    assert loaded.recipe.data.augmentation == ({"Rotate": {"limit": 5, "p": 0.5}},)
    assert loaded.with_values({path: 30}).recipe.data.augmentation == ({"Rotate": {"limit": 30, "p": 0.5}},)


def test_a_tried_value_cannot_be_changed_through_its_recipe(write):
    loaded = load_recipe(write(MINIMAL), ["model.head={search: choice, values: [{hidden: [8]}]}"])
    tried = loaded.with_values({("model", "head"): loaded.spaces["model", "head"].values[0]})
    tried.document.root["model"]["head"]["hidden"].append(9)
    assert loaded.spaces["model", "head"].values == ({"hidden": [8]},)


@pytest.mark.parametrize(
    ("space", "column", "message"),
    [
        ("{search: int, low: 9, high: 3}", 3, "low 9 is not below high 3"),
        ("{search: int, low: 9}", 3, "high is missing"),
        ("{search: int, low: 8, high: 32, step: 25}", 3, "a step of 25 leaves only 8 between 8 and 32"),
        ("{search: int, low: 9.5, high: 12}", 29, "low: 9.5 is wrong: expected a whole number"),
        ("{search: log_uniform, low: 0, high: 1}", 37, "low: 0 is wrong: expected more than 0"),
        ("{search: uniform, low: true, high: 1}", 33, "low: true is wrong: expected a number"),
        ("{search: int, min: 1, max: 9}", 29, "unknown key 'min'; did you mean 'low'?"),
        ("{search: choice, options: [1, 9]}", 32, "unknown key 'options'; did you mean 'values'?"),
        ("{search: choice, values: 9}", 32, "values: 9 is wrong: expected a list"),
        ("{search: choice, values: [8, 9], when: x}", 48, "when: 'x' is wrong: expected keys and values"),
        ("{search: bool}", 16, "unknown search space 'bool'; write search: choice, values: [true, false]"),
        ("{search: , low: 1, high: 9}", 16, "unknown search space null; available: choice, int"),
        ("{search: {int: [1, 9]}}", 16, "unknown search space {'int': [1, 9]}; available: choice, int"),
        ("{search: uniform, low: 1, high: 3, defualt: 2}", 50, "unknown key 'defualt'; did you mean 'default'?"),
        ("{search: log_unifrm, low: 1, high: 3}", 16, "unknown search space 'log_unifrm'; did you mean 'log_uniform'?"),
        ("{search: choice, values: []}", 32, "values: [] is wrong: expected a list of at least 1"),
        ("{search: choice, values: [8, 16, 8]}", 3, "8 appears twice among the values"),
        ("{search: choice, values: [1], default: true}", 3, "default true is not among the values 1"),
        (
            "{search: choice, values: [8, {search: int, low: 1, high: 3}]}",
            44,
            "it contains another search space; write it at",
        ),
        (
            "{search: choice, values: [8, [{a: {search: int, low: 1, high: 3}}]]}",
            46,
            "it contains another search space",
        ),
    ],
)
def test_a_broken_space_is_named_with_its_place(write, space, column, message):
    path = write(f"data: {{source: x}}\ntrain:\n  batch_size: {space}\n")
    (line,) = errors_of(path)
    assert message in line
    assert line.startswith(f"error[recipe] {path}:3:{column} train.batch_size: ")


def test_a_default_that_the_file_does_not_show_is_named_as_one(write):
    (line,) = errors_of(write("data: {source: x}\ntrain: {batch_size: {search: uniform, low: 8, high: 32}}\n"))
    assert "20.0 is wrong: expected a whole number or 'auto' (the default of this uniform space); " in line
    assert line.endswith("for whole numbers write search: int")
    stage = "{name: a, epochs: 1, learning_rate: 1, freeze_head: {search: choice, values: [true, false]}}"
    (line,) = errors_of(write(f"data: {{source: x}}\ntrain: {{stages: [{stage}]}}\n"))
    assert line.endswith("nothing is left to train (with the defaults train.stages[0].freeze_head: true)")


def test_a_class_may_be_called_search(write):
    recipe = load_recipe(write("data: {source: x}\ntrain: {class_weights: {search: 2, other: 1}}\n")).recipe
    assert recipe.train.class_weights == {"search": 2, "other": 1}


@pytest.mark.parametrize(("value", "shown"), [("", "null"), ("true", "true"), ("[1]", "[1]")])
def test_a_wrong_value_is_shown_as_the_recipe_spells_it(write, value, shown):
    (line,) = errors_of(write(f"data: {{source: x}}\nsearch: {{trials: {value}}}\n"))
    assert f"search.trials: {shown} is wrong: expected a whole number" in line


def test_all_broken_spaces_are_named(write):
    text = (
        "data: {source: x}\ntrain: {batch_size: {search: ints}, label_smoothing: {search: uniform, low: 1, high: 0}}\n"
    )
    first, second = errors_of(write(text))
    assert "train.batch_size" in first
    assert "train.label_smoothing" in second


def test_nothing_can_be_set_inside_what_a_space_stands_for(write):
    path = write("data: {source: x}\ntrain: {optimizer: {search: choice, values: [adamw, sgd]}}\n")
    (line,) = errors_of(path, "train.optimizer.weight_decay=0.1")
    assert "train.optimizer is a search space: no key inside it can be set" in line
    assert load_recipe(path, ["train.optimizer.default=sgd"]).recipe.train.optimizer.name == "sgd"


@pytest.mark.parametrize("key", ["learning_rate", "epochs"])
def test_a_preset_with_a_space_beside_it_is_not_written_out(write, key):
    path = write(MINIMAL + f"train: {{stages: lp_ft, {key}: {{search: choice, values: [1, 2]}}}}\n")
    first = ("learning_rate", 1) if key == "learning_rate" else ("epochs", 1)
    assert getattr(load_recipe(path).recipe.train.stages[0], first[0]) == first[1]
    (line,) = errors_of(path, "train.stages.1.unfreeze=last 1 blocks")
    assert f"`{key}` is a search space here" in line
    assert f"set train.stages[0].{key} (probe), train.stages[1].{key} (all)" in line


def test_warm_start_takes_one_or_more_and_starts_at_the_recipe(write, tmp_path):
    path = write(MINIMAL + "search: {warm_start: runs/first}\n")
    assert load_recipe(path).recipe.search.warm_start == (str(tmp_path / "runs" / "first"),)
    several = load_recipe(write(MINIMAL), ["search.warm_start=[/a/b, runs:/abc]"]).recipe.search.warm_start
    assert several == ("/a/b", "runs:/abc")


def test_the_resolved_recipe_reads_back_equal(write, tmp_path):
    first = load_recipe(write(MINIMAL + "train: {optimizer: sgd}\nmodel: {weights: a.h5}\n")).recipe
    again = tmp_path / "elsewhere" / "recipe.yaml"
    again.parent.mkdir()
    again.write_text(format_recipe(first), encoding="utf-8")
    assert load_recipe(again).recipe == first


def test_a_missing_file_says_where_recipes_come_from(tmp_path):
    (line,) = errors_of(tmp_path / "none.yaml")
    assert "no such file or folder; `imagetune recipe list`" in line


def test_binary_is_not_a_recipe(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xd8\xff\xe0" * 10)
    assert "is not UTF-8 text" in errors_of(path)[0]


def test_names_in_both_normal_forms_are_the_same_and_paths_are_those_of_the_files(tmp_path):
    decomposed, composed = (unicodedata.normalize(form, "käse") for form in ("NFD", "NFC"))
    (tmp_path / decomposed).mkdir()
    (tmp_path / "r.yaml").write_text(f"data: {{source: {composed}, classes: [{decomposed}, brot]}}\n", encoding="utf-8")
    data = load_recipe(tmp_path / "r.yaml").recipe.data
    assert data.classes == (composed, "brot")
    assert Path(data.source).is_dir()


def test_a_recipe_is_measured_before_it_is_read(write, tmp_path):
    path = write(MINIMAL)
    os.truncate(path, 3 << 30)
    (line,) = errors_of(path)
    assert "can't be read: it has 3,221,225,472 bytes, and the most is 1,000,000" in line
    os.mkfifo(tmp_path / "pipe.yaml")
    (line,) = errors_of(tmp_path / "pipe.yaml")
    assert "can't be read: it is a pipe, not a regular file" in line
    (line,) = errors_of(Path("/dev/zero"))
    assert "can't be read: it is a device, not a regular file" in line


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("data: {source: NAME}", "1:8 data.source"),
        ("data: {source: x}\nmodel: {weights: NAME.h5}", "2:9 model.weights"),
        ("data: {source: x}\ntrain: {teacher: NAME}", "2:9 train.teacher"),
        ("data: {source: x}\nsearch: {warm_start: [NAME]}", "2:10 search.warm_start"),
    ],
)
@pytest.mark.parametrize(("name", "what"), [("ä" * 150, "has 30"), ("a/" * 3000, "the path has 6,")])
def test_a_path_that_no_file_system_has_is_a_mistake_of_the_recipe(write, section, key, name, what):
    (line,) = errors_of(write(section.replace("NAME", name)))
    assert key in line
    assert what in line


def test_the_recipe_itself_may_be_no_such_path_either():
    for path in (Path("a" * 300), Path("a/" * 3000), "a\0b", "a\ud800b"):
        (line,) = errors_of(path)
        assert line.startswith("error[recipe] recipe: ")


def test_an_unknown_users_home_is_no_mistake_of_the_recipes_form(write):
    assert load_recipe(write("data: {source: ~nobody-at-all/images}\n")).recipe.data.source.endswith("/images")


@pytest.mark.parametrize(
    ("override", "what"),
    [
        (".".join(["a"] * 50) + "=1", "the key has 50 parts"),
        ("data.source=a\ud800b", "which no file or name of ours can hold"),
        ("a\ud800b=1", "which no file or name of ours can hold"),
        ("data.source=" + "a" * 300, "a name in the path has 300 bytes"),
        ("seed=0x" + "f" * 5000, "expected a whole number"),
    ],
)
def test_a_strange_override_is_a_mistake_with_its_place(write, override, what):
    (line,) = errors_of(write(MINIMAL), override)
    assert line.startswith("error[recipe] -o ")
    assert what in line


@pytest.mark.parametrize(
    ("index", "what"),
    [
        ("-1", "train.stages has items 0 to 1, not '-1'"),
        ("1" * 5000, "train.stages has items 0 to 1, not '1111"),
        ("²", "did you mean 'stages'"),
    ],
)
def test_an_index_that_is_no_number_is_no_index(write, index, what):
    (line,) = errors_of(write(MINIMAL), f"train.stages[{index}].epochs=3")
    assert what in line


def test_an_override_changes_only_its_own_key(write):
    path = write(
        "data: {source: x}\ntrain:\n  stages:\n"
        "    - {name: a, epochs: 1, learning_rate: 1e-3, early_stopping: &stop {patience: 1}}\n"
        "    - {name: b, epochs: 1, learning_rate: 1e-3, early_stopping: *stop}\n"
    )
    stages = load_recipe(path, ["train.stages[1].early_stopping.patience=7"]).recipe.train.stages
    assert [stage.early_stopping.patience for stage in stages] == [1, 7]


def test_a_class_whose_name_is_a_number_with_zeros_keeps_it(write):
    recipe = load_recipe(write(MINIMAL), ["train.class_weights.007=2.0"]).recipe
    assert recipe.train.class_weights == {"007": 2.0}


@pytest.mark.parametrize("name", ["a\0b", "a\ud800b"])
def test_python_values_that_no_file_can_hold_are_refused_too(name):
    for values in ({"data": {"source": name}}, {"data": {"source": "x"}, "tracking": {"tags": {name: "y"}}}):
        with pytest.raises(RecipeError, match="which no file or name of ours can hold"):
            load_recipe(values)
    with pytest.raises(RecipeError, match="which no file or name of ours can hold"):
        load_recipe({"data": {"source": "x"}}, {"card.license": name})
    with pytest.raises(RecipeError, match="expected at most"):
        load_recipe({"data": {"source": "x"}}, {"data.max_pixels": 10**5000})


def test_every_number_of_a_recipe_has_an_upper_limit():
    def numbers(node, at=""):
        if isinstance(node, list):
            for inner in node:
                yield from numbers(inner, at)
        elif isinstance(node, dict):
            if node.get("type") in ("integer", "number"):
                yield at, node
            for key, inner in node.items():
                yield from numbers(inner, f"{at}.{key}")

    schema = json_schema()
    assert [at for at, node in numbers(schema) if not {"maximum", "exclusiveMaximum"} & set(node)] == []


@pytest.mark.parametrize(
    ("text", "key", "limit"),
    [
        ("train: {epochs: 1000000000000000}", "train.epochs", "at most 100,000"),
        ("train: {batch_size: 10000000}", "train.batch_size", "at most 65,536 or 'auto'"),
        ("model: {head: {hidden: [100000]}}", "model.head.hidden[0]", "at most 16,384"),
        (f"model: {{head: {{hidden: [{'8,' * 40}]}}}}", "model.head.hidden", "a list of at most 32"),
        ("search: {trials: 10000000}", "search.trials", "at most 100,000"),
        ("train: {augmented_copies: 10000}", "train.augmented_copies", "at most 1,000 or 'auto'"),
    ],
)
def test_a_number_beyond_its_limit_is_refused_with_the_limit(write, text, key, limit):
    lines = errors_of(write(f"{MINIMAL}{text}\n"))
    assert key in lines[0]
    assert limit in lines[0]


def test_of_thousands_of_mistakes_fifty_are_shown(write):
    lines = errors_of(write(MINIMAL + "".join(f"k{index}: 1\n" for index in range(3000))))
    assert len(lines) == 51
    assert lines[-1] == "error[recipe] 2,950 more mistakes"


def test_a_line_about_an_endless_name_keeps_its_end(write):
    (line,) = errors_of(write(MINIMAL + f'? "{"a" * 500_000}"\n: 1\n'))
    assert len(line) < 4000
    assert line.endswith("tracking, train")


CANARY = "CANARY-pw-7"


@pytest.mark.parametrize(
    ("uri", "what"),
    [
        ("ftp://x", "'ftp://x' is no store that MLflow has: expected an address such as http://HOST:5000"),
        ("mlruns", "'mlruns' has no `://`"),
        ("http:host:5000", "'http:host:5000' has no `://`"),
        ("http://", "names no server"),
        ("http://host:5000x", "names no server"),
        ("http://a b", "has blanks"),
        ('"http://a\\nb"', "has blanks or control characters"),
    ],
)
def test_an_address_of_no_store_is_found_when_the_recipe_is_read(write, uri, what):
    path = write(f"{MINIMAL}tracking:\n  uri: {uri}\n")
    (line,) = errors_of(path)
    assert f"{path}:3:3 tracking.uri: " in line
    assert re.search(what, line)


@pytest.mark.parametrize(
    "uri",
    [
        *("http://ann:pw@host:5000", "https://host/mlflow", "http://***@host:5000", "http://[::1]:5000"),
        *("sqlite:///runs of mine/a@b.db", "postgresql+psycopg2://ann:p/w@db/mlflow", "mysql://db/m?ssl=1"),
        *("databricks", "databricks://profile", "file:///mlruns"),
    ],
)
def test_an_address_of_a_store_is_taken_as_it_is(uri):
    assert load_recipe({"data": {"source": "x"}}, {"tracking.uri": uri}).recipe.tracking.uri == uri


@pytest.mark.parametrize(
    "address", ["http:ann:PW@host", "http://ann:PW@host:x", "ftp://ann:PW@host", "ann:PW@host", "http://host/?token=PW"]
)
@pytest.mark.parametrize(
    "text",
    [
        "tracking: {uri: 'ADDRESS', experiment: 7}",
        "tracking: {uri: ['ADDRESS'], experiment: 7}",
        "tracking: {url: 'ADDRESS', uri: 7}",
        "tracking: 'ADDRESS'",
        "tracking: ['ADDRESS']",
        "tracking: {tags: 'ADDRESS'}",
        "tracking: {tracker: 'ADDRESS'}",
    ],
)
def test_no_mistake_in_a_recipe_shows_a_password(write, address, text):
    path = write(f"{MINIMAL}{text.replace('ADDRESS', address.replace('PW', CANARY))}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert CANARY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "override",
    [
        *("tracking.uri=ADDRESS", "tracking.uri:ADDRESS", "tracking.url=ADDRESS", "tracking=ADDRESS", "ADDRESS"),
        *("tracking.uri=[ADDRESS", "tracking.uri.x=ADDRESS", "tracking.tags=ADDRESS", "tracking.uri='ADDRESS"),
    ],
)
@pytest.mark.parametrize("address", ["http:ann:PW@host", "ftp://ann:PW@host", "http://ann:PW@host:x"])
def test_no_mistake_in_an_override_shows_a_password(write, override, address):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(MINIMAL), [override.replace("ADDRESS", address.replace("PW", CANARY))])
    assert CANARY not in "".join(traceback.format_exception(caught.value))
