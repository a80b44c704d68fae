import jsonschema
import pytest
import yaml

from imagetune.errors import RecipeError
from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import (
    compare_recipes,
    flatten_values,
    format_recipe,
    format_searchable_recipe,
    json_schema,
)


def test_every_key_of_the_schema_is_described():
    schema = json_schema()
    sections = [name for name in schema["$defs"] if name.endswith(("Config", "Requirement"))]
    for name in sections:
        for key, field in schema["$defs"][name]["properties"].items():
            assert field.get("description"), f"{name}.{key}"


@pytest.mark.parametrize(
    "text",
    [
        "data: {source: x}",
        "data: {source: x}\ntrain: {stages: lp_ft, epochs: 3, optimizer: sgd}",
        "data: {source: x}\ntrain: {batch_size: {search: choice, values: [16, 32]}}",
        "data: {source: x, augmentation: [{HorizontalFlip: {p: 0.5}}]}",
        "data: {source: x, augmentation: [{HorizontalFlip: {p: {search: uniform, low: 0, high: 1}}}]}",
        "data: {source: x, augmentation: {search: choice, values: [none, [{HorizontalFlip: {p: 0.5}}]]}}",
        "data: {source: x, image_size: {search: choice, values: [96, [96, 128]], default: 96}}",
        "data: {source: x}\ntrain: {optimizer: {search: choice, values: [adamw, {name: sgd, momentum: 0.9}]}}",
        "data: {source: x}\ntrain: {stages: {search: choice, values: [lp_ft, full]}}",
        "data: {source: x}\ntrain: {stages: lp_ft, epochs: {search: int, low: 1, high: 3}}",
        "data: {source: x}\nmodel: {head: {search: choice, values: [{dropout: 0.1}, {hidden: [64]}]}}",
        "data: {source: x}\nmodel: {search: choice, values: [{backbone: resnet50}, {backbone: vgg16}]}",
        "data: {source: x, resize: {search: choice, values: [pad, crop]}}\n"
        "train: {batch_size: {search: int, low: 8, high: 64, step: 8, when: {data.resize: [pad]}}}",
        "data: {source: x, resize: {search: choice, values: [pad, crop]}}\n"
        "train: {label_smoothing: {search: uniform, low: 0, high: 0.2, when: {data.resize: pad}}}",
        "data: {source: x}\ntrain: {mix: mixup, teacher: runs/a}\nsearch: {warm_start: runs/b}",
        "data: {source: x}\nsearch: {warm_start: [runs/b, 'runs:/c']}",
        "data: {source: x}\ntrain: {stages: [{name: a, epochs: 1, learning_rate: 0.001, schedule: constant}]}",
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    load_recipe(tmp_path / "r.yaml")
    jsonschema.validate(yaml.safe_load(text), json_schema())


@pytest.mark.parametrize(
    "text",
    [
        "data: {}",
        "data: {source: x, sise: 3}",
        "data: {source: x}\ntrain: {stages: best}",
        "data: {source: x}\ntrain: {batch_size: {search: ints, low: 1, high: 3}}",
        "data: {source: x}\ntrain: {batch_size: {search: int, low: 1}}",
        "data: {source: x}\ntrain: {batch_size: {search: choice, values: [1], wehn: {}}}",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text, tmp_path):
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "r.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema())


def test_differences_name_the_key_and_both_values(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: {source: x}\n")
    first = load_recipe(path).recipe
    second = load_recipe(path, ["train.batch_size=64", "data.classes=[a]"]).recipe
    assert compare_recipes(first, second) == [
        ("data.classes", None, "(absent)"),
        ("train.batch_size", 32, 64),
        ("data.classes[0]", "(absent)", "a"),
    ]


def test_flatten_keeps_empty_lists():
    assert dict(flatten_values({"a": {"b": [], "c": [1, {"d": 2}]}})) == {"a.b": [], "a.c[0]": 1, "a.c[1].d": 2}


@pytest.mark.parametrize("stages", ["head_then_top", None])
def test_a_searched_recipe_reads_back_with_its_spaces(tmp_path, stages):
    rate = "{search: log_uniform, low: 1e-4, high: 1e-2, default: 1e-3}"
    train = (
        f"stages: {stages}, learning_rate: {rate}"
        if stages
        else (f"stages: [{{name: head, epochs: 2, learning_rate: {rate}}}]")
    )
    optimizer = "{search: choice, values: [adamw, {name: sgd, momentum: 0.5}]}"
    (tmp_path / "recipe.yaml").write_text(
        f"data: {{source: images}}\ntrain: {{optimizer: {optimizer}, {train}}}\n"
        "model: {head: {dropout: {search: uniform, low: 0, high: 0.5, when: {train.optimizer: adamw}}}}\n"
    )
    loaded = load_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "recipe.yaml").write_text(format_searchable_recipe(loaded))
    again = load_recipe(tmp_path / "again" / "recipe.yaml")
    assert again.spaces == loaded.spaces
    assert again.recipe == loaded.recipe


def test_a_searched_preset_keeps_what_else_its_section_says(tmp_path):
    (tmp_path / "recipe.yaml").write_text(
        "data: {source: images}\n"
        "train: {stages: linear_probe, epochs: {search: int, low: 1, high: 3}, teacher: runs/bigger, batch_size: 8}\n"
    )
    loaded = load_recipe(tmp_path / "recipe.yaml")
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "recipe.yaml").write_text(format_searchable_recipe(loaded))
    again = load_recipe(tmp_path / "again" / "recipe.yaml")
    assert again.recipe.train.teacher.run == str(tmp_path / "runs" / "bigger")
    assert (again.spaces, again.recipe) == (loaded.spaces, loaded.recipe)


def test_nothing_that_is_shown_of_a_recipe_has_its_password(tmp_path):
    path = tmp_path / "r.yaml"
    address = "http://ann:CANARY@host:5000/?token=CANARY"
    path.write_text(f"data: {{source: x}}\ntracking: {{uri: '{address}', tags: {{server: '{address}'}}}}\n")
    loaded = load_recipe(path)
    other = load_recipe(path, ["tracking.uri=http://bob:CANARY2@host"]).recipe
    assert loaded.recipe.tracking.uri == address
    shown = [format_recipe(loaded.recipe), format_searchable_recipe(loaded), str(compare_recipes(loaded.recipe, other))]
    assert "CANARY" not in "".join(shown)
    assert all("http://***@host" in text for text in shown)
