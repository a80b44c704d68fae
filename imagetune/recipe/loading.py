"""Loading of recipes: from a file or mapping and overrides to a validated, frozen ``Recipe``."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import ValidationError

from imagetune.core import run_files
from imagetune.core.files import read_bounded_text
from imagetune.core.path_names import expand_home, find_path_problem, find_spelling
from imagetune.core.secrets import HIDDEN, redact_text, redact_uri
from imagetune.errors import RecipeError
from imagetune.recipe.conditions import check_conditions, settle_conditions
from imagetune.recipe.document import (
    MAX_BYTES,
    MAX_DEPTH,
    Document,
    NodePath,
    find_text_problem,
    get_value,
    parse_document,
    parse_value,
)
from imagetune.recipe.plain_values import convert_to_plain_values, normalize_texts
from imagetune.recipe.presets import StagesError, expand_stages
from imagetune.recipe.problems import build_recipe_error, format_path, format_value, parse_path
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import Space
from imagetune.recipe.source_kinds import TABLE_SUFFIXES
from imagetune.recipe.spaces import (
    add_defaults_to_error,
    find_place,
    find_spaces,
    is_inside_space,
    move_locations,
    take_spaces,
)

_DOTTED = re.compile(r"[a-z]\w*(\.\w+|\[\d+\])+")
_WEIGHT_FILES = (".h5", ".keras", ".safetensors")

RecipeSource: TypeAlias = str | Path | Mapping[str, Any] | Recipe
"""A recipe file; a folder of images or a table, which get the defaults; a recipe's content as a mapping; or a recipe
that is already validated."""
Overrides: TypeAlias = Iterable[str] | Mapping[str, Any]
"""``KEY=VALUE`` texts with values in YAML, as after ``-o``; or Python values by dotted key."""


@dataclass(frozen=True)
class LoadedRecipe:
    """A validated recipe with its search spaces and the locations of its keys.

    Attributes:
        recipe: The validated values, every search space replaced by its default.
        spaces: The search spaces by path.
        document: The raw values after overrides, with their places in the file.
        folder: Folder that relative paths start from.
    """

    recipe: Recipe
    spaces: Mapping[NodePath, Space]
    document: Document
    folder: Path

    def with_values(self, values: Mapping[NodePath, Any]) -> LoadedRecipe:
        """Return the recipe with other values at some paths, validated again and without the search spaces there.

        Raises:
            RecipeError: A value is not valid at its path.
        """
        # Copied: trials of a search share one loaded recipe.
        root, locations = copy.deepcopy(self.document.root), self.document.locations
        for path, value in values.items():
            if path in self.spaces:
                locations = move_locations(locations, find_place(self.spaces[path], path, value), path)
            _assign(root, path, copy.deepcopy(value), replace(self.document, root=root, locations=locations))
        document = replace(self.document, root=root, locations=locations)
        left = {path: space for path, space in self.spaces.items() if path not in values}
        return LoadedRecipe(_validate(document, self.folder), left, document, self.folder)

    @contextmanager
    def placing_errors(self) -> Iterator[None]:
        """Add ``file:line:column`` to errors of the block that name a key, such as ``train.stages[0].unfreeze``."""
        try:
            yield
        except RecipeError as error:
            if not _DOTTED.fullmatch(error.where):
                raise
            raise self.error(parse_path(error.where), error.what, hint=error.hint) from error

    def error(self, path: NodePath, what: str, *, hint: str = "") -> RecipeError:
        """Return an error about the value at a path, with its ``file:line:column``."""
        return RecipeError(what, where=f"{self.document.where(path)} {format_path(path)}".strip(), hint=hint)


def load_recipe(source: RecipeSource, overrides: Overrides = ()) -> LoadedRecipe:
    """Return the validated recipe of a file or mapping, with its search spaces and the locations of its keys.

    Args:
        source: A YAML file, the same content as a mapping, or a recipe; or a folder of images or a table, for a recipe
            of defaults. Relative paths start from the file's folder, those of a mapping from the working directory.
        overrides: ``KEY=VALUE`` texts as after ``-o``, a key being a dotted path and a value YAML; or Python values by
            dotted key. Relative paths in them start from the working directory, as everywhere in a shell.

    Raises:
        RecipeError: The first of all mistakes, the others in ``also``, each with ``file:line:column key``; in a mapping
            with the key alone.
    """
    document, folder = _read_source(source)
    # Noted before the overrides: where one fixes a space, the conditions that name it must be settled.
    written = list(find_spaces(document.root))
    given = list(_parse_overrides(overrides))
    for path, value, where in given:
        _assign(document.root, path, value, Document(where, document.root, {}))
    option = "" if isinstance(overrides, Mapping) else "-o"
    document = replace(document, overridden=frozenset(path for path, _, _ in given), option=option)
    spaces = take_spaces(document)
    fixed = {path: get_value(document.root, path) for path in written if path not in spaces}
    spaces = settle_conditions(spaces, fixed)
    check_conditions(spaces, document)
    try:
        recipe = _validate(document, folder)
    except RecipeError as error:
        raise add_defaults_to_error(error, spaces) from error
    return LoadedRecipe(recipe, spaces, document, folder)


def _read_source(source: RecipeSource) -> tuple[Document, Path]:
    """Return a recipe's raw values with their locations, and the folder that its relative paths start from."""
    if isinstance(source, (str, Path)):
        if problem := find_path_problem(source):
            raise RecipeError(problem, where="recipe")
        path = Path(source)
        if path.is_dir() or path.suffix.lower() in TABLE_SUFFIXES:
            return _build_default_document(path), path.absolute().parent
        document = parse_document(_read_text(path), name=str(path))
        document.root.setdefault("name", build_name(path))
        return document, path.absolute().parent
    values = source.model_dump(mode="json") if isinstance(source, Recipe) else convert_to_plain_values(source, name="")
    if not isinstance(values, dict):
        what = f"{format_value(source)} is not a recipe: expected a file's path, or a mapping with keys such as data"
        raise RecipeError(what, where="recipe")
    return Document("", values, {}), Path.cwd()


def _build_default_document(source: Path) -> Document:
    """Return the recipe of a folder of images or a table that comes without one: the defaults."""
    if all((source / name).is_file() for name in (run_files.RECIPE, run_files.STATUS)):
        hint = f"its recipe is {source / run_files.RECIPE}"
        raise RecipeError("is a run folder, neither a recipe nor a folder of images", where=str(source), hint=hint)
    # The folder's own name, which `.` and `..` don't show.
    place = Path(_normalise_path(source.absolute()))
    # recipe.yaml of the run names it.
    if problem := find_text_problem(str(place)):
        raise RecipeError(problem, where=str(source), hint="rename it, or give a link to it")
    return Document("", {"name": build_name(place), "data": {"source": str(place)}}, {})


def _read_text(path: Path) -> str:
    try:
        return read_bounded_text(path, max_bytes=MAX_BYTES)
    except FileNotFoundError as error:
        hint = "`imagetune recipe list` shows the recipes that are shipped, `imagetune recipe copy` copies one"
        raise RecipeError("no such file or folder", where=str(path), hint=hint) from error
    except OSError as error:
        raise RecipeError(f"can't be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise RecipeError("is not UTF-8 text", where=str(path), hint="save it as UTF-8") from error


def build_name(path: Path) -> str:
    """Return a name for a recipe from the name of a file or folder."""
    # It becomes part of the run folder's name, so only what every file system takes is kept.
    return "".join(letter if letter.isalnum() or letter in "_.-" else "-" for letter in path.stem)[:100] or "run"


def _validate(document: Document, folder: Path) -> Recipe:
    try:
        recipe = Recipe.model_validate(normalize_texts(document.root))
    except ValidationError as error:
        # Not `from error`: pydantic's text shows the values, and with them a password.
        raise build_recipe_error(error, document, Recipe) from None
    return _with_absolute_paths(recipe, document, folder)


def _with_absolute_paths(recipe: Recipe, document: Document, folder: Path) -> Recipe:
    """Return the recipe with absolute paths, so that its copy in the run folder means the same."""

    def locate(place: str, *at: str) -> str:
        # What was typed after -o was completed by the shell, and starts where that is.
        start = Path.cwd() if document.is_overridden(at) else folder
        located = start / expand_home(place)
        if problem := find_path_problem(located):
            raise RecipeError(problem, where=f"{document.where(at)} {format_path(at)}".strip())
        return _normalise_path(located)

    def absolute(run: str, *at: str) -> str:
        return run if run.startswith(("runs:/", "models:/")) else locate(run, *at)

    data = recipe.data.model_copy(update={"source": locate(recipe.data.source, "data", "source")})
    weights = recipe.model.weights
    # A single word such as `imagenet` is a name; whatever has a slash or the ending of a weight file is a path.
    if weights.endswith(_WEIGHT_FILES) or ("/" in weights and not weights.startswith(("runs:/", "models:/"))):
        weights = locate(weights, "model", "weights")
    model, train = recipe.model.model_copy(update={"weights": weights}), recipe.train
    if train.teacher is not None:
        at = ("train", "teacher", "run")
        teacher = train.teacher.model_copy(update={"run": absolute(train.teacher.run, *at)})
        train = train.model_copy(update={"teacher": teacher})
    warm_start = tuple(absolute(run, "search", "warm_start") for run in recipe.search.warm_start)
    search = recipe.search.model_copy(update={"warm_start": warm_start})
    return recipe.model_copy(update={"data": data, "model": model, "train": train, "search": search})


def _normalise_path(path: Path) -> str:
    """Return a path without ``.`` and ``x/..``.

    Links are not followed, as ``Path.resolve`` would: users read this path again in recipe.yaml.
    """
    parts: list[str] = []
    for part in path.parts:
        if part == ".." and len(parts) > 1:
            parts.pop()
        elif part != "..":
            parts.append(part)
    return find_spelling(str(Path(*parts)))


def _parse_overrides(overrides: Overrides) -> Iterator[tuple[NodePath, Any, str]]:
    """Yield path, value and location (for messages) of each override."""
    if isinstance(overrides, Mapping):
        for key, value in overrides.items():
            yield _key_path(key, key), convert_to_plain_values(value, name=key), key
        return
    for text in overrides:
        key, equals, written = text.partition("=")
        where = f"-o {_describe_override(text)}"
        if not equals or not key.strip():
            raise RecipeError("expected KEY=VALUE, such as -o train.batch_size=64", where=where)
        yield _key_path(key, where), parse_value(written, name=where), where


def _describe_override(text: str) -> str:
    """Return an override as messages show it, without a password."""
    key, equals, written = text.partition("=")
    if key.strip().startswith("tracking"):
        # Whatever stands there, also with a colon in place of the sign or without the scheme.
        written = HIDDEN if "@" in written else written
        key = redact_uri(key)
    return redact_text(f"{key}{equals}{written}")


def _key_path(key: str, where: str) -> NodePath:
    path = parse_path(key)
    if problem := find_text_problem(key):
        raise RecipeError(problem, where=where)
    if len(path) > MAX_DEPTH:
        raise RecipeError(f"the key has {len(path)} parts, and the most is {MAX_DEPTH}", where=where)
    return path


def _assign(root: dict[str, Any], path: NodePath, value: Any, document: Document) -> None:
    """Set ``root[path]``, creating missing sections, and expanding a preset where the path names one of its stages."""
    if path[:2] == ("train", "stages") and len(path) > 2:
        _expand_preset(root, document)
    node: Any = root
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, list):
            if not isinstance(part, int) or part >= len(node):
                problem = f"{format_path(path[:depth])} has items 0 to {len(node) - 1}, not {format_value(part)}"
                raise RecipeError(problem, where=document.where(path))
        elif not isinstance(node, dict):
            problem = (
                f"{format_path(path[:depth])} is the value {format_value(node)}, which has no key {format_value(part)}"
            )
            raise RecipeError(problem, where=document.where(path))
        else:
            part = str(part)  # noqa: PLW2901  (a class called 3 is a key, not an index)
            if depth and is_inside_space(node, part):
                problem = f"{format_path(path[:depth])} is a search space: no key inside it can be set"
                raise RecipeError(problem, where=document.where(path), hint="replace it as a whole, or set its default")
        if last:
            node[part] = value
        elif isinstance(node, dict):
            node = node.setdefault(part, {})
        else:
            node = node[part]


def _expand_preset(root: dict[str, Any], document: Document) -> None:
    train = root.setdefault("train", {})
    if isinstance(train, dict) and not isinstance(train.get("stages"), list):
        try:
            root["train"] = expand_stages(train)
        except StagesError as error:
            raise RecipeError(str(error), where=document.where(("train", error.key)), hint=error.hint) from error
