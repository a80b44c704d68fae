"""Recipes as text: the resolved YAML, the differences of two, and the JSON schema for editors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter

from imagetune.recipe.document import NodePath
from imagetune.recipe.presets import PRESETS
from imagetune.recipe.problems import dotted
from imagetune.recipe.schema import Recipe
from imagetune.recipe.search import Space

_SCALARS = {"string", "number", "integer", "boolean"}
ABSENT = "(absent)"


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain values, every default included."""
    return recipe.model_dump(mode="json")


def recipe_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML that reads back to an equal recipe."""
    return yaml.safe_dump(recipe_values(recipe), sort_keys=False, allow_unicode=True, width=120)


def flatten(values: Any, path: NodePath = ()) -> Iterator[tuple[str, Any]]:
    """Yield ``train.stages[0].epochs`` and value for every scalar; empty lists and mappings count as scalars."""
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from flatten(value, (*path, key))
    elif isinstance(values, (list, tuple)) and values:
        for index, value in enumerate(values):
            yield from flatten(value, (*path, index))
    else:
        yield dotted(path), values


def recipe_differences(first: Recipe, second: Recipe) -> list[tuple[str, Any, Any]]:
    """Return key, first and second value wherever two recipes differ."""
    ours, theirs = dict(flatten(recipe_values(first))), dict(flatten(recipe_values(second)))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    pairs = ((key, ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in keys)
    return [(key, left, right) for key, left, right in pairs if left != right or type(left) is not type(right)]


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file: every key with its description, spaces and presets allowed."""
    schema = Recipe.model_json_schema()
    space = TypeAdapter(Space).json_schema(ref_template="#/$defs/{model}")
    definitions = {**schema["$defs"], **space.pop("$defs")}
    own_scalars = set(space["discriminator"]["mapping"].values())
    for name, definition in schema["$defs"].items():
        if f"#/$defs/{name}" not in own_scalars and name != "SearchConfig" and "properties" in definition:
            definition["properties"] = {key: _or_space(value) for key, value in definition["properties"].items()}
    _allow_presets(definitions["TrainConfig"]["properties"])
    for section, key in (("StageConfig", "schedule"), ("TrainConfig", "optimizer")):
        _allow_bare_name(definitions, definitions[section]["properties"], key)
    schema["$defs"] = {**definitions, "Space": space}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "imagetune recipe",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _or_space(field: dict[str, Any]) -> dict[str, Any]:
    """Allow a search space where a scalar is expected."""
    kinds = {field.get("type"), *(choice.get("type") for choice in field.get("anyOf", ()))}
    if not kinds & _SCALARS and "enum" not in field:
        return field
    kept: dict[str, Any] = {key: field[key] for key in ("title", "description", "default") if key in field}
    rest = {key: value for key, value in field.items() if key not in kept}
    choices = rest["anyOf"] if set(rest) == {"anyOf"} else [rest]
    return {**kept, "anyOf": [*choices, {"$ref": "#/$defs/Space"}]}


def _allow_presets(properties: dict[str, Any]) -> None:
    stages = properties["stages"]
    kept: dict[str, Any] = {key: stages.pop(key) for key in ("title", "description") if key in stages}
    stages.pop("default", None)
    properties["stages"] = {**kept, "anyOf": [{"enum": list(PRESETS)}, stages]}
    properties["epochs"] = {"description": "Epochs of each stage of a preset.", "type": "integer", "minimum": 1}
    rate: dict[str, Any] = {"description": "Learning rate of the head in a preset; other stages get their share of it."}
    properties["learning_rate"] = {**rate, "anyOf": [{"type": "number"}, {"$ref": "#/$defs/Space"}]}


def _allow_bare_name(definitions: Mapping[str, Any], properties: dict[str, Any], key: str) -> None:
    field = properties[key]
    reference = field.pop("$ref")
    names = definitions[reference.rsplit("/", 1)[-1]]["properties"]["name"]
    scalar = next(choice for choice in names["anyOf"] if "enum" in choice)
    properties[key] = {**field, "anyOf": [scalar, {"$ref": reference}]}
