"""Python values (paths, tuples, NumPy scalars) converted to what a recipe file would hold."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Mapping
from typing import Any

from imagetune.errors import RecipeError
from imagetune.recipe.document import MAX_DEPTH, find_text_problem
from imagetune.recipe.problems import format_value


def convert_to_plain_values(value: Any, *, name: str, depth: int = 0) -> Any:
    """Return a copy made of dicts, lists and scalars, as reading the same recipe from YAML would give.

    Args:
        value: Mappings, lists, tuples, paths, NumPy scalars and arrays, and scalars; anything else stays as it is, and
            is refused by the validation of its key.
        name: Dotted key, for messages.
        depth: Number of mappings and lists around the value.

    Raises:
        RecipeError: A key is neither text nor a whole number, or the nesting is too deep, as in a list that holds
            itself.
    """
    if depth > MAX_DEPTH:
        raise RecipeError(f"nested deeper than {MAX_DEPTH} levels", where=name)
    if isinstance(value, str) and (problem := find_text_problem(value)):
        raise RecipeError(problem, where=name)
    if isinstance(value, Mapping):
        return {
            _key(key, name): convert_to_plain_values(inner, name=f"{name}.{key}" if name else str(key), depth=depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [
            convert_to_plain_values(inner, name=f"{name}[{index}]", depth=depth + 1)
            for index, inner in enumerate(value)
        ]
    if isinstance(value, os.PathLike):
        return convert_to_plain_values(os.fspath(value), name=name, depth=depth)
    # NumPy's scalars and arrays, without importing it for them.
    return value.tolist() if hasattr(value, "tolist") else value


def _key(key: Any, name: str) -> str:
    # A class that is called 3 has that name in a file, too.
    if isinstance(key, str):
        return str(convert_to_plain_values(key, name=name))
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    raise RecipeError(f"{format_value(key)} can't be a key: expected text", where=name or "recipe")


def normalize_texts(value: Any) -> Any:
    """Return a copy of plain values whose texts, keys too, are in Unicode's normal form C, as class names are."""
    if isinstance(value, str):
        return unicodedata.normalize("NFC", value)
    if isinstance(value, dict):
        return {normalize_texts(key): normalize_texts(inner) for key, inner in value.items()}
    return [*map(normalize_texts, value)] if isinstance(value, list) else value
