"""Recipes as text: resolved YAML, differences of two recipes, and the JSON schema for editors."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import TypeAdapter

from imagetune.core.secrets import redact_text, redact_uri
from imagetune.core.text import CONTROLS
from imagetune.recipe.document import NodePath, get_value
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.presets import PRESETS
from imagetune.recipe.problems import format_path
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.base import Epochs, Positive
from imagetune.recipe.sections.search import Space

# Sections and top-level keys in which a search space makes no sense: a trial can't change them.
_WITHOUT_SPACES = {"SearchConfig", "BudgetConfig", "RayConfig"}
_FIXED_KEYS = {"name", "seed", "evaluate", "tracking", "card", "search"}
# Section and key of values that may be written as their name alone.
_BARE_NAMES = (
    ("StageConfig", "schedule"),
    *(("TrainConfig", key) for key in ("optimizer", "loss", "mix", "average")),
)
ABSENT = "(absent)"
# What a terminal would obey; line breaks and tabs are the text's own.
_HIDDEN = re.compile(f"(?![\n\t]){CONTROLS.pattern}")


def list_recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as plain JSON values, every default included, without the secrets of its tracking server.

    Whatever is shown, written or sent of a recipe comes from here; the recipe itself keeps them.
    """
    values = recipe.model_dump(mode="json")
    tracking = values["tracking"]
    if tracking["uri"] is not None:
        tracking["uri"] = redact_uri(tracking["uri"])
    tracking["tags"] = {redact_text(name): redact_text(text) for name, text in tracking["tags"].items()}
    return values


def format_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML that reads back to an equal recipe."""
    return _dump(list_recipe_values(recipe))


def format_searchable_recipe(loaded: LoadedRecipe) -> str:
    """Return a recipe as YAML that reads back to an equal recipe with the same search spaces."""
    values: Any = list_recipe_values(loaded.recipe)
    for path in loaded.spaces:
        if get_value(values, path, ABSENT) is ABSENT:
            # A space at a key of a preset, which the resolved recipe has expanded into stages: the file's form is kept.
            section, written = values[str(path[0])], copy.deepcopy(loaded.document.root[str(path[0])])
            section |= {key: value for key, value in written.items() if key == "stages" or key not in section}
    for path, space in loaded.spaces.items():
        get_value(values, path[:-1])[path[-1]] = space.model_dump(mode="json", exclude_unset=True)
    return _dump(values)


class _Dumper(yaml.SafeDumper):
    """Writer of YAML that puts texts with control characters into double quotes, which alone have escapes."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Return the node of a text."""
        hidden = _HIDDEN.search(data)
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"' if hidden else None)


_Dumper.add_representer(str, _Dumper.represent_str)


def _dump(values: Mapping[str, Any]) -> str:
    # Unsorted, so that keys keep the schema's order in place of the alphabet's.
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    # PyYAML writes some as they are, such as those that turn the direction of text; they are in quotes now.
    return _HIDDEN.sub(lambda found: f"\\U{ord(found[0]):08x}", text)


def flatten_values(values: Any, path: NodePath = ()) -> Iterator[tuple[str, Any]]:
    """Yield dotted key (``train.stages[0].epochs``) and value of every scalar.

    Empty lists and mappings count as scalars, or they would vanish.
    """
    if isinstance(values, Mapping) and values:
        for key, value in values.items():
            yield from flatten_values(value, (*path, key))
    elif isinstance(values, (list, tuple)) and values:
        for index, value in enumerate(values):
            yield from flatten_values(value, (*path, index))
    else:
        yield format_path(path), values


def compare_recipes(first: Recipe, second: Recipe) -> list[tuple[str, Any, Any]]:
    """Return (key, first value, second value) of every key at which two recipes differ."""
    ours, theirs = dict(flatten_values(list_recipe_values(first))), dict(flatten_values(list_recipe_values(second)))
    keys = [*ours, *(key for key in theirs if key not in ours)]
    # Types count too: 1, 1.0 and true are equal in Python and mean different things in a recipe.
    pairs = ((key, ours.get(key, ABSENT), theirs.get(key, ABSENT)) for key in keys)
    return [(key, left, right) for key, left, right in pairs if left != right or type(left) is not type(right)]


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe file: every key with its description, search spaces and presets allowed."""
    schema = Recipe.model_json_schema()
    space = TypeAdapter(Space).json_schema(ref_template="#/$defs/{model}")
    definitions = {**schema["$defs"], **space.pop("$defs")}
    for name, definition in schema["$defs"].items():
        if name not in _WITHOUT_SPACES and "properties" in definition:
            definition["properties"] = {key: _allow_space(value) for key, value in definition["properties"].items()}
    schema["properties"] = {
        key: value if key in _FIXED_KEYS else _allow_space(value) for key, value in schema["properties"].items()
    }
    for kind in space["discriminator"]["mapping"].values():
        _allow_single_condition(definitions[kind.rsplit("/", 1)[-1]]["properties"]["when"])
    _allow_presets(definitions["TrainConfig"]["properties"])
    for section, key in _BARE_NAMES:
        _allow_bare_name(definitions, definitions[section]["properties"], key)
    definitions["TrainConfig"]["properties"]["teacher"]["anyOf"].insert(0, {"type": "string"})
    _allow_single_run(definitions["SearchConfig"]["properties"])
    schema["$defs"] = {**definitions, "Space": space}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "imagetune recipe",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _allow_space(field: dict[str, Any]) -> dict[str, Any]:
    """Return a field's schema that also allows a search space in the place of the value and of every item of a list."""
    kept: dict[str, Any] = {key: field[key] for key in ("title", "description", "default") if key in field}
    rest = {key: value for key, value in field.items() if key not in kept}
    choices = [_allow_space_items(choice) for choice in (rest["anyOf"] if set(rest) == {"anyOf"} else [rest])]
    return {**kept, "anyOf": [*choices, {"$ref": "#/$defs/Space"}]}


def _allow_space_items(choice: dict[str, Any]) -> dict[str, Any]:
    choice = dict(choice)
    if isinstance(choice.get("items"), dict):
        choice["items"] = _allow_space(choice["items"])
    if "prefixItems" in choice:
        choice["prefixItems"] = [_allow_space(item) for item in choice["prefixItems"]]
    if isinstance(choice.get("additionalProperties"), dict):
        choice["additionalProperties"] = _allow_space(choice["additionalProperties"])
    return choice


def _allow_single_condition(when: dict[str, Any]) -> None:
    """Allow a single value in the place of a list in ``when``; which values there are, only the other space knows."""
    when["additionalProperties"] = {"description": "Value, or list of values, that the other space must have."}


def _allow_single_run(properties: dict[str, Any]) -> None:
    field = properties["warm_start"]
    kept: dict[str, Any] = {key: field.pop(key) for key in ("title", "description", "default") if key in field}
    properties["warm_start"] = {**kept, "anyOf": [{"type": "string"}, dict(field)]}


def _allow_presets(properties: dict[str, Any]) -> None:
    stages = properties["stages"]
    kept: dict[str, Any] = {key: stages.pop(key) for key in ("title", "description") if key in stages}
    stages.pop("default", None)
    properties["stages"] = {**kept, "anyOf": [{"enum": list(PRESETS)}, stages]}
    epochs = "Number of epochs of each stage of a preset."
    properties["epochs"] = _allow_space({"description": epochs, **TypeAdapter(Epochs).json_schema()})
    head_rate = "Peak learning rate of the head in a preset; other stages get a share of it."
    properties["learning_rate"] = _allow_space({"description": head_rate, **TypeAdapter(Positive).json_schema()})
    solve = "Whether a preset solves its head (auto, unless a learning rate is given) or trains it (false)."
    properties["solve"] = {"description": solve, "enum": ["auto", True, False]}


def _allow_bare_name(definitions: Mapping[str, Any], properties: dict[str, Any], key: str) -> None:
    choices = properties[key]["anyOf"]
    reference = next(choice["$ref"] for choice in choices if "Config" in choice.get("$ref", ""))
    names = definitions[reference.rsplit("/", 1)[-1]]["properties"]["name"]
    choices.insert(0, next(choice for choice in names["anyOf"] if "enum" in choice))
