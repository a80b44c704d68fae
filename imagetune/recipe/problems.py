"""Pydantic validation errors turned into messages: file, line and column, what was expected, did you mean."""

from __future__ import annotations

import json
import math
import re
import types
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from imagetune.core.secrets import redact_text, redact_uri
from imagetune.core.text import suggest_name
from imagetune.errors import RecipeError
from imagetune.recipe.document import Document, NodePath
from imagetune.recipe.presets import StagesError

# Names of the same keys in other tools (fastai, timm, Keras).
_ALIASES = {
    "lr": "learning_rate",
    "bs": "batch_size",
    "arch": "backbone",
    "aug": "augmentation",
    "size": "image_size",
    "min": "low",
    "max": "high",
    "choices": "values",
    "options": "values",
}
_MANY = 12
# An index in a key such as train.stages.0.epochs. A class that is called 007 has that name, and no number.
_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def build_recipe_error(error: ValidationError, document: Document, root: type[BaseModel]) -> RecipeError:
    """Return a RecipeError for the first mistake in the file, with the others in ``also``.

    Args:
        error: Pydantic's error for ``document.root``.
        document: The recipe after overrides.
        root: The section class that was validated, which knows the keys that exist.
    """
    by_path: dict[NodePath, list[Mapping[str, Any]]] = {}
    for finding in error.errors(include_url=False):
        by_path.setdefault(_strip_union_branches(finding, document.root), []).append(finding)
    meant = {path: found for path, found in by_path.items() if not _is_other_branch(path, found, by_path)}
    # In the order of the file, in which they will be corrected.
    in_order = sorted(meant.items(), key=lambda item: document.place(item[0]))
    found = [_build_error(path, findings, document, root) for path, findings in in_order]
    return found[0].with_also(tuple(found[1:]))


def _is_other_branch(path: NodePath, findings: Iterable[Mapping[str, Any]], paths: Iterable[NodePath]) -> bool:
    """Return whether findings only say that a list or mapping is no scalar.

    Pydantic reports every branch of a union; what is wrong inside the list says more.
    """
    words = ("literal_error", "string_type", "int_type", "float_type", "bool_type")
    if any(finding["type"] not in words or not isinstance(finding["input"], (list, dict)) for finding in findings):
        return False
    return any(len(other) > len(path) and other[: len(path)] == path for other in paths)


def suggest_known_word(word: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the nearest known word, or a short list of the known words."""
    known = sorted(known)
    alias = _ALIASES.get(word)
    if alias in known:
        return f"did you mean {alias!r}?"
    return suggest_name(word, known) or f"available: {join_first_words(known)}"


def join_first_words(words: Iterable[str]) -> str:
    """Return the first 12 words separated by commas, with dots where there are more; an endless iterator will do."""
    first = list(islice(words, _MANY + 1))
    return ", ".join(first[:_MANY]) + (", ..." if len(first) > _MANY else "")


def format_path(path: NodePath) -> str:
    """Return a path in dotted notation, such as ``train.stages[0].epochs``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def parse_path(text: str) -> NodePath:
    """Return the path that a dotted key such as ``train.stages[0].epochs`` or ``train.stages.0.epochs`` names."""
    # A negative index is no index, but is answered with those that there are.
    parts = re.sub(r"\[(-?[0-9]+)\]", r".\1", text.strip()).split(".")
    return tuple(int(part) if _INDEX.fullmatch(part) else part for part in parts)


def format_value(value: Any) -> str:
    """Return a value as a recipe spells it, shortened to 60 characters and without the secrets of addresses."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(_clip(value))
    # Before it is shortened: half an address would not be known for one.
    text = redact_text(text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _clip(value: Any) -> Any:
    """Return a value, or the beginning of one that would take long to write out in full."""
    if isinstance(value, str):
        return value[:100]
    # More digits than Python writes out.
    if isinstance(value, int) and abs(value) > 10**60:
        return math.inf if value > 0 else -math.inf
    if isinstance(value, dict):
        return {_clip(key): _clip(inner) for key, inner in islice(value.items(), 20)}
    return [_clip(inner) for inner in value[:20]] if isinstance(value, (list, tuple)) else value


def _strip_union_branches(finding: Mapping[str, Any], root: Any) -> NodePath:
    """Return the path of a finding in the recipe, without the names of union branches that pydantic adds."""
    path: list[str | int] = []
    node = root
    loc = finding["loc"]
    for position, part in enumerate(loc):
        inside = (isinstance(node, dict) and part in node) or (
            isinstance(node, (list, tuple)) and isinstance(part, int) and part < len(node)
        )
        if inside:
            path.append(part)
            node = node[part]
        elif position == len(loc) - 1 and finding["type"] == "missing":
            path.append(part)
    return tuple(path)


def _build_error(
    path: NodePath, findings: list[Mapping[str, Any]], document: Document, root: type[BaseModel]
) -> RecipeError:
    first = findings[0]
    where = f"{document.where(path)} {format_path(path)}".strip()
    match first["type"]:
        case "missing":
            return RecipeError("is missing and has no default", where=where, hint=f"add `{path[-1]}:`")
        case "extra_forbidden":
            keys = _list_keys(root, path[:-1])
            return RecipeError("unknown key", where=where, hint=suggest_known_word(str(path[-1]), keys))
        case "value_error":
            # The error itself, because pydantic's message puts "Value error, " before its text.
            problem = first["ctx"]["error"]
            if isinstance(problem, StagesError):
                at = (*path, problem.key)
                where = f"{document.where(at)} {format_path(at)}".strip()
                return RecipeError(str(problem), where=where, hint=problem.hint)
            return RecipeError(str(problem), where=where)
    wanted = " or ".join(dict.fromkeys(describe_expectation(finding) for finding in findings))
    hint = _suggest_literal(findings) or _suggest_keys(path, findings, root)
    shown = format_value(_hide_address(first["input"]) if path[:1] == ("tracking",) else first["input"])
    return RecipeError(f"{shown} is wrong: expected {wanted}", where=where, hint=hint)


def describe_expectation(finding: Mapping[str, Any]) -> str:
    """Return what one of pydantic's findings expected, as words to follow "expected"."""
    context = finding.get("ctx", {})
    match finding["type"]:
        case "literal_error":
            return str(context["expected"])
        case "int_type" | "int_from_float":
            return "a whole number"
        case "float_type":
            return "a number"
        case "finite_number":
            return "a finite number"
        case "string_type":
            return "text (quote it if it looks like a number)"
        case "bool_type":
            return "true or false"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "keys and values"
        case "tuple_type":
            return "a list"
        case "too_short":
            return f"a list of at least {context['min_length']}"
        case "too_long":
            return f"a list of at most {context['max_length']}"
        case "greater_than" | "greater_than_equal" | "less_than" | "less_than_equal" | "multiple_of":
            return _describe_bound(finding["type"], context)
    text = str(finding["msg"])
    return text[0].lower() + text[1:]


def _hide_address(value: Any) -> Any:
    """Return what stands in the place of an address, which may have lost its scheme, without a password."""
    if isinstance(value, dict):
        return {_hide_address(key): _hide_address(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [*map(_hide_address, value)]
    return redact_uri(value) if isinstance(value, str) else value


def _describe_bound(kind: str, context: Mapping[str, Any]) -> str:
    words = {
        "greater_than": ("more than", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("less than", "lt"),
        "less_than_equal": ("at most", "le"),
        "multiple_of": ("a multiple of", "multiple_of"),
    }
    word, key = words[kind]
    bound = context[key]
    return f"{word} {bound:,}" if isinstance(bound, int) else f"{word} {bound}"


def _suggest_literal(findings: list[Mapping[str, Any]]) -> str:
    for finding in findings:
        if finding["type"] == "literal_error" and isinstance(finding["input"], str):
            known = [part.strip(" '") for part in str(finding["ctx"]["expected"]).replace(" or ", ", ").split(",")]
            hint = suggest_known_word(finding["input"], known)
            return hint if hint.startswith("did") else ""
    return ""


def _suggest_keys(path: NodePath, findings: Iterable[Mapping[str, Any]], root: type[BaseModel]) -> str:
    """Return a hint that lists the keys of a section for which a single value was written."""
    for finding in findings:
        if finding["type"] in ("model_type", "model_attributes_type"):
            keys = list(dict.fromkeys(_list_keys(root, path)))
            return f"its keys are {join_first_words(keys)}"
        # A word; an address, too, would be written out here.
        if finding["type"] == "dict_type" and isinstance(finding["input"], str) and finding["input"].isidentifier():
            return f"write `{finding['input']}: {{}}`"
    return ""


def _list_keys(root: type[BaseModel], path: NodePath) -> list[str]:
    """Return the keys of the section, or of the union's sections, at a path."""
    sections: list[Any] = [root]
    for part in path:
        sections = [
            inner
            for section in sections
            for inner in (
                _find_sections(section.model_fields[part].annotation)
                if isinstance(part, str) and part in section.model_fields
                else [section]
                if isinstance(part, int)
                else []
            )
        ]
    return [name for section in sections for name in section.model_fields]


def _find_sections(annotation: Any) -> list[type[BaseModel]]:
    """Return the section classes inside a field's type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if get_origin(annotation) in (Annotated, Union, types.UnionType, tuple, list, dict):
        return [section for inner in get_args(annotation) for section in _find_sections(inner)]
    return []
