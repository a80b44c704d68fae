"""From a recipe file and overrides to a validated, frozen Recipe."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from imagetune.errors import RecipeError
from imagetune.recipe.conditions import check_conditions, settle_conditions
from imagetune.recipe.document import Document, NodePath, parse_document, parse_value, value_at
from imagetune.recipe.plain_values import plain_values
from imagetune.recipe.presets import expand_stages
from imagetune.recipe.problems import dotted, recipe_error, shown
from imagetune.recipe.schema import Recipe
from imagetune.recipe.search import Space
from imagetune.recipe.spaces import is_inside_space, moved, place_of, spaces_below, take_spaces, with_defaults_told

_DOTTED = re.compile(r"[a-z]\w*(\.\w+|\[\d+\])+")
_WEIGHT_FILES = (".h5", ".keras")

RecipeSource: TypeAlias = str | Path | Mapping[str, Any] | Recipe
"""A recipe file, its content as a mapping, or a recipe that has been read."""
Overrides: TypeAlias = Iterable[str] | Mapping[str, Any]
"""``KEY=VALUE`` texts with values in YAML, as after ``-o``, or Python values by dotted key."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A recipe and what its file says beyond the values.

    Attributes:
        recipe: The validated values, every search space replaced by its default.
        spaces: The search spaces by path.
        document: The raw values after overrides, with their places in the file.
        folder: Where relative paths start.
    """

    recipe: Recipe
    spaces: Mapping[NodePath, Space]
    document: Document
    folder: Path

    def with_values(self, values: Mapping[NodePath, Any]) -> LoadedRecipe:
        """Return the recipe with other values at some paths, validated again, and nothing left to search there.

        Raises:
            RecipeError: When the recipe doesn't allow them.
        """
        root, locations = copy.deepcopy(self.document.root), self.document.locations
        for path, value in values.items():
            if path in self.spaces:
                locations = moved(locations, place_of(self.spaces[path], path, value), path)
            _assign(root, path, copy.deepcopy(value), Document(self.document.name, root, locations))
        document = Document(self.document.name, root, locations)
        left = {path: space for path, space in self.spaces.items() if path not in values}
        return LoadedRecipe(_validate(document, self.folder), left, document, self.folder)

    @contextmanager
    def placing_errors(self) -> Iterator[None]:
        """Give an error that names a key of the recipe, such as ``train.stages[0].unfreeze``, its place in the file."""
        try:
            yield
        except RecipeError as error:
            if not _DOTTED.fullmatch(error.where):
                raise
            parts = re.findall(r"\w+", error.where)
            path = tuple(int(part) if part.isdigit() else part for part in parts)
            raise self.error(path, error.what, hint=error.hint) from error

    def error(self, path: NodePath, what: str, *, hint: str = "") -> RecipeError:
        """Return an error about a value that only a real object could refuse, with its place in the file."""
        return RecipeError(what, where=f"{self.document.where(path)} {dotted(path)}".strip(), hint=hint)


def load_recipe(source: RecipeSource, overrides: Overrides = ()) -> LoadedRecipe:
    """Return the validated recipe of a file or a mapping, with what it says beyond the values.

    Args:
        source: The YAML file; or the same content as a mapping, or a recipe. Relative paths start at the file's folder,
            those of a mapping at the working directory.
        overrides: ``KEY=VALUE`` texts as after ``-o``, a key being a dotted path and a value YAML; or Python values by
            dotted key.

    Raises:
        RecipeError: Everything that is wrong, each with ``file:line:column key``, or the key alone in a mapping.
    """
    document, folder = _given(source)
    written = list(spaces_below(document.root))
    for path, value, where in _settings(overrides):
        _assign(document.root, path, value, Document(where, document.root, {}))
    spaces = take_spaces(document)
    fixed = {path: value_at(document.root, path) for path in written if path not in spaces}
    spaces = settle_conditions(spaces, fixed)
    check_conditions(spaces, document)
    try:
        recipe = _validate(document, folder)
    except RecipeError as error:
        raise with_defaults_told(error, spaces) from error
    return LoadedRecipe(recipe, spaces, document, folder)


def _given(source: RecipeSource) -> tuple[Document, Path]:
    """Return a recipe's raw values with their places in the file, and where its relative paths start."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        document = parse_document(_read(path), name=str(path))
        document.root.setdefault("name", _default_name(path))
        return document, path.absolute().parent
    values = source.model_dump(mode="json") if isinstance(source, Recipe) else plain_values(source, name="")
    if not isinstance(values, dict):
        what = f"{shown(source)} is no recipe: expected a file's path, or a mapping with keys such as data"
        raise RecipeError(what, where="recipe")
    return Document("", values, {}), Path.cwd()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = "`imagetune recipe list` shows the recipes that are shipped, `imagetune recipe copy` copies one"
        raise RecipeError("no such file", where=str(path), hint=hint) from error
    except IsADirectoryError as error:
        hint = "`imagetune recipe copy quickstart DIR` gives one; -o data.source=FOLDER names the images"
        raise RecipeError("is a folder, not a recipe", where=str(path), hint=hint) from error
    except OSError as error:
        raise RecipeError(f"can't be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise RecipeError("is not UTF-8 text", where=str(path), hint="save it as UTF-8") from error


def _default_name(path: Path) -> str:
    return "".join(letter if letter.isalnum() or letter in "_.-" else "-" for letter in path.stem)[:100] or "run"


def _validate(document: Document, folder: Path) -> Recipe:
    try:
        recipe = Recipe.model_validate(document.root)
    except ValidationError as error:
        raise recipe_error(error, document, Recipe) from error
    return _with_absolute_paths(recipe, folder)


def _with_absolute_paths(recipe: Recipe, folder: Path) -> Recipe:
    """Make paths absolute, so that the resolved recipe means the same from the run folder."""

    def absolute(run: str) -> str:
        return run if run.startswith(("runs:/", "models:/")) else _tidy(folder / Path(run).expanduser())

    source = folder / Path(recipe.data.source).expanduser()
    data = recipe.data.model_copy(update={"source": _tidy(source)})
    weights = recipe.model.weights
    if weights.endswith(_WEIGHT_FILES) or ("/" in weights and not weights.startswith(("runs:/", "models:/"))):
        weights = _tidy(folder / Path(weights).expanduser())
    model, train = recipe.model.model_copy(update={"weights": weights}), recipe.train
    if train.teacher is not None:
        teacher = train.teacher.model_copy(update={"run": absolute(train.teacher.run)})
        train = train.model_copy(update={"teacher": teacher})
    search = recipe.search.model_copy(update={"warm_start": tuple(map(absolute, recipe.search.warm_start))})
    return recipe.model_copy(update={"data": data, "model": model, "train": train, "search": search})


def _tidy(path: Path) -> str:
    """Drop ``.`` and ``x/..`` from a path without following links."""
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part != "..":
            parts.append(part)
    return str(Path(*parts))


def _settings(overrides: Overrides) -> Iterator[tuple[NodePath, Any, str]]:
    """Yield the path, the value and the place for messages of each override."""
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield _key_path(key), plain_values(value, name=key), key
        return
    for text in overrides:
        where = f"-o {text}"
        key, equals, written = text.partition("=")
        if not equals or not key.strip():
            raise RecipeError("expected KEY=VALUE, such as -o train.batch_size=64", where=where)
        yield _key_path(key), parse_value(written, name=where), where


def _key_path(key: str) -> NodePath:
    return tuple(int(part) if part.isdigit() else part for part in key.strip().split("."))


def _assign(root: dict[str, Any], path: NodePath, value: Any, document: Document) -> None:
    """Set ``root[path]``, making sections on the way and writing a preset out when one of its stages is meant."""
    if path[:2] == ("train", "stages") and len(path) > 2:
        _write_stages_out(root, document)
    node: Any = root
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, list):
            if not isinstance(part, int) or part >= len(node):
                problem = f"{dotted(path[:depth])} has items 0 to {len(node) - 1}, not {part!r}"
                raise RecipeError(problem, where=document.where(path))
        elif not isinstance(node, dict):
            problem = f"{dotted(path[:depth])} is the value {node!r}, it has no key {part!r}"
            raise RecipeError(problem, where=document.where(path))
        else:
            part = str(part)  # noqa: PLW2901  (a class called 3 is a key, not an index)
            if depth and is_inside_space(node, part):
                problem = f"{dotted(path[:depth])} is a search space, so that nothing in it can be set"
                raise RecipeError(problem, where=document.where(path), hint="replace it as a whole, or set its default")
        if last:
            node[part] = value
        elif isinstance(node, dict):
            node = node.setdefault(part, {})
        else:
            node = node[part]


def _write_stages_out(root: dict[str, Any], document: Document) -> None:
    train = root.setdefault("train", {})
    if isinstance(train, dict) and not isinstance(train.get("stages"), list):
        try:
            root["train"] = expand_stages(train)
        except ValueError as error:
            raise RecipeError(str(error), where=document.where(("train", "stages"))) from error
