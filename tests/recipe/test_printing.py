import jsonschema
import pytest
import yaml

from imagetune.recipe.loading import load_recipe
from imagetune.recipe.printing import flatten, json_schema, recipe_differences


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
        "data: {source: x}\ntrain: {stages: [{name: a, epochs: 1, learning_rate: 0.001, schedule: constant}]}",
    ],
)
def test_the_schema_accepts_what_the_loader_accepts(text):
    jsonschema.validate(yaml.safe_load(text), json_schema())


@pytest.mark.parametrize("text", ["data: {}", "data: {source: x, sise: 3}", "data: {source: x}\ntrain: {stages: best}"])
def test_the_schema_refuses_what_the_loader_refuses(text):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), json_schema())


def test_differences_name_the_key_and_both_values(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("data: {source: x}\n")
    first = load_recipe(path).recipe
    second = load_recipe(path, ["train.batch_size=64", "data.classes=[a]"]).recipe
    assert recipe_differences(first, second) == [
        ("data.classes", None, "(absent)"),
        ("train.batch_size", 32, 64),
        ("data.classes[0]", "(absent)", "a"),
    ]


def test_flatten_keeps_empty_lists():
    assert dict(flatten({"a": {"b": [], "c": [1, {"d": 2}]}})) == {"a.b": [], "a.c[0]": 1, "a.c[1].d": 2}
