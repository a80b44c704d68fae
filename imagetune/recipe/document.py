"""YAML parser for recipes: 1.2 scalars, no duplicate keys, no code, bounded size, line and column of every key.

PyYAML's constructors follow YAML 1.1 (``no`` is false, ``1e-4`` is text, ``00123`` is 83), build Python objects and
expand aliases without bound; only its event parser is used here.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from imagetune.errors import RecipeError

NodePath = tuple[str | int, ...]

# A recipe takes a page. The bounds keep a hostile file, such as one of aliases of aliases, from exhausting memory.
MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DEPTH = 40

_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
# YAML 1.2 would read 00123 as a number; as a label it is text, and no one writes a quantity like that.
_INT = re.compile(r"[-+]?(0|[1-9][0-9]*)")
# Of at most 64 bits, too: a longer one stays text.
_OTHER_INT = re.compile(r"0o[0-7]{1,21}|0x[0-9a-fA-F]{1,16}")
_IMPOSSIBLE = re.compile("[\0\ud800-\udfff]")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL_FLOAT = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"
_TEXT_TAGS = {f"{_TAG}str", "!"}
_PLAIN_TAGS = {None, *(f"{_TAG}{kind}" for kind in ("null", "bool", "int", "float", "seq", "map"))}


@dataclass(frozen=True)
class Location:
    """Line and column in a file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """A parsed recipe file with the line and column of its keys.

    Attributes:
        name: Name of the file as the user wrote it; empty for a mapping.
        root: Content as plain dicts, lists and scalars.
        locations: Line and column of each key and list item.
        overridden: The paths whose values come from overrides, not from the file.
        option: What messages put before such a path: ``-o``, or nothing for the Python API.
    """

    name: str
    root: dict[str, Any]
    locations: dict[NodePath, Location]
    overridden: frozenset[NodePath] = frozenset()
    option: str = ""

    def is_overridden(self, path: NodePath) -> bool:
        """Return whether the value at a path comes from an override, also from one of a section around it."""
        return any(path[:end] in self.overridden for end in range(len(path) + 1))

    def place(self, path: NodePath) -> tuple[int, int]:
        """Return line and column of a path, or of the nearest section around it that the file has; else (0, 0)."""
        if self.is_overridden(path):
            return 0, 0
        for end in range(len(path), -1, -1):
            if found := self.locations.get(path[:end]):
                return found.line, found.column
        return 0, 0

    def where(self, path: NodePath) -> str:
        """Return ``file:line:column`` of a path, or of the nearest section around it; the file alone without one.

        For a path that an override has set it is the option, as the file shows another value or none.
        """
        if self.is_overridden(path):
            return self.option
        line, column = self.place(path)
        return f"{self.name}:{line}:{column}" if line else self.name


@dataclass
class _Open:
    """A mapping or list whose end event has not come yet."""

    value: dict[str, Any] | list[Any]
    path: NodePath
    anchor: str | None
    first_node: int
    key: str | None = None
    # Levels of mappings and lists inside it, as far as it has been read.
    levels: int = 0


@dataclass(frozen=True)
class _Anchored:
    """A value with an anchor, the number of values in it, and the levels of mappings and lists that it has."""

    value: Any
    nodes: int = 1
    levels: int = 0


@dataclass
class _Builder:
    """Builds plain values and their locations from the events of PyYAML's parser."""

    name: str
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, _Anchored] = field(default_factory=dict)
    locations: dict[NodePath, Location] = field(default_factory=dict)
    nodes: int = 0
    root: Any = None
    documents: int = 0

    def make_error(self, mark: Any, what: str, hint: str = "") -> RecipeError:
        return RecipeError(what, where=f"{self.name}:{mark.line + 1}:{mark.column + 1}", hint=hint)

    def count(self, mark: Any, nodes: int) -> None:
        """Count values against the bound, those of an alias as often as it is used."""
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.make_error(mark, f"more than {MAX_NODES} values (aliases counted as often as they are used)")

    def check_depth(self, mark: Any, levels: int) -> None:
        """Check that so many levels of mappings and lists fit into those that are open, and note them there."""
        if len(self.stack) + levels > MAX_DEPTH:
            raise self.make_error(mark, f"nested deeper than {MAX_DEPTH} levels (those of aliases are counted, too)")
        for above, one in enumerate(reversed(self.stack)):
            one.levels = max(one.levels, above + levels)

    def check_text(self, event: yaml.ScalarEvent) -> None:
        if problem := find_text_problem(event.value):
            raise self.make_error(event.start_mark, problem)

    def place(self, mark: Any, value: Any) -> NodePath:
        """Put a value into the innermost open mapping or list and return its path."""
        if not self.stack:
            self.root = value
            return ()
        parent = self.stack[-1]
        if isinstance(parent.value, list):
            parent.value.append(value)
            path = (*parent.path, len(parent.value) - 1)
            self.locations[path] = Location(mark.line + 1, mark.column + 1)
            return path
        if parent.key is None:
            raise self.make_error(mark, "a key must be text, not a list or mapping")
        path = (*parent.path, parent.key)
        parent.value[parent.key] = value
        parent.key = None
        return path

    def wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].value, dict) and self.stack[-1].key is None

    def take_key(self, event: Any) -> None:
        parent = self.stack[-1]
        # A key stays the text that is written, so that classes may be called `no` or `3`.
        path = (*parent.path, event.value)
        if event.value in parent.value:
            first = self.locations[path].line
            raise self.make_error(
                event.start_mark, f"key {event.value!r} appears twice, first in line {first}", "keep one of the two"
            )
        self.locations[path] = Location(event.start_mark.line + 1, event.start_mark.column + 1)
        parent.key = event.value

    def scalar(self, event: Any) -> None:
        self.count(event.start_mark, 1)
        self.check_text(event)
        if self.wants_key():
            self.take_key(event)
            return
        value = self.resolve(event)
        if event.anchor:
            self.anchors[event.anchor] = _Anchored(value)
        self.place(event.start_mark, value)

    def resolve(self, event: yaml.ScalarEvent) -> Any:
        if event.tag in _TEXT_TAGS:
            return event.value
        if event.tag not in _PLAIN_TAGS:
            raise self.make_error(
                event.start_mark, f"tag {event.tag!r} is not allowed", "a recipe holds plain values only"
            )
        # PyYAML's first flag says that the scalar is plain; a quoted one stays text.
        return resolve_scalar(event.value) if event.implicit[0] else event.value

    def open(self, event: Any, value: dict[str, Any] | list[Any]) -> None:
        self.count(event.start_mark, 1)
        if event.tag not in _PLAIN_TAGS:
            raise self.make_error(
                event.start_mark, f"tag {event.tag!r} is not allowed", "a recipe holds plain values only"
            )
        self.check_depth(event.start_mark, 1)
        path = self.place(event.start_mark, value)
        self.stack.append(_Open(value, path, event.anchor, self.nodes))

    def close(self) -> None:
        done = self.stack.pop()
        if done.anchor:
            # Known only from its end on, so that no value can contain itself through an alias.
            self.anchors[done.anchor] = _Anchored(done.value, self.nodes - done.first_node + 1, done.levels + 1)

    def alias(self, event: yaml.AliasEvent) -> None:
        if self.wants_key():
            raise self.make_error(event.start_mark, "an alias can't be a key")
        if event.anchor not in self.anchors:
            raise self.make_error(event.start_mark, f"alias *{event.anchor} has no anchor &{event.anchor} before it")
        anchored = self.anchors[event.anchor]
        self.count(event.start_mark, anchored.nodes)
        self.check_depth(event.start_mark, anchored.levels)
        # A copy, because `-o` sets one key, and not every place that has the same alias.
        self.place(event.start_mark, copy.deepcopy(anchored.value))

    def take(self, event: Any) -> None:
        match event:
            case yaml.DocumentStartEvent():
                self.documents += 1
                if self.documents > 1:
                    raise self.make_error(event.start_mark, "a second document starts here", "keep one document a file")
            case yaml.ScalarEvent():
                self.scalar(event)
            case yaml.MappingStartEvent():
                self.open(event, {})
            case yaml.SequenceStartEvent():
                self.open(event, [])
            case yaml.AliasEvent():
                self.alias(event)
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                self.close()


def parse_document(text: str, *, name: str) -> Document:
    """Return the parsed recipe of a YAML text, with the line and column of every key.

    Args:
        text: Content of the file.
        name: Name of the file, for messages.

    Raises:
        RecipeError: With ``name:line:column``: not YAML, too large, a duplicate key, a tag, or a root that is no
            mapping.
    """
    builder = _Builder(name)
    _feed(builder, text)
    if builder.root is None:
        raise RecipeError("is empty", where=f"{name}:1:1", hint="start from `imagetune recipe copy quickstart DIR`")
    if not isinstance(builder.root, dict):
        kind = "a list" if isinstance(builder.root, list) else f"the single value {builder.root!r}"
        raise RecipeError(f"the root is {kind}, expected keys such as `data:`", where=f"{name}:1:1")
    return Document(name, builder.root, builder.locations)


def parse_value(text: str, *, name: str) -> Any:
    """Return one value parsed from the command line, such as ``1e-4``, ``[64, 96]`` or ``linear_probe``."""
    builder = _Builder(name)
    _feed(builder, text)
    return builder.root


def resolve_scalar(text: str) -> str | bool | int | float | None:
    """Return a plain scalar resolved by the core schema of YAML 1.2; a number with leading zeros stays text."""
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    # Up to 19 digits, which fit into 64 bits; a longer number becomes a float below.
    if _INT.fullmatch(text) and len(text) < 20:
        return int(text)
    if _OTHER_INT.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if match := _SPECIAL_FLOAT.fullmatch(text):
        return float("nan") if match[3] else float(f"{match[1]}inf")
    return text


def find_text_problem(text: str) -> str:
    """Return what keeps a text from being written to a recipe, or used as a name; "" where nothing does."""
    if not (found := _IMPOSSIBLE.search(text)):
        return ""
    return f"the text {text[:40]!a} has {found[0]!a}, which no file or name of ours can hold: expected Unicode text"


def get_value(node: Any, path: NodePath, absent: Any = None) -> Any:
    """Return the value at a path of keys and indices; ``absent`` where there is none."""
    for part in path:
        inside = part in node if isinstance(node, dict) else isinstance(node, list) and part in range(len(node))
        if not inside:
            return absent
        node = node[part]
    return node


def _feed(builder: _Builder, text: str) -> None:
    if len(text) > MAX_BYTES:
        raise RecipeError(f"it has {len(text):,} characters, and the most is {MAX_BYTES:,}", where=builder.name)
    if problem := find_text_problem(text):
        raise RecipeError(problem, where=_place(builder.name, text, _IMPOSSIBLE))
    # libyaml's parser is much faster, but not every platform's wheel of PyYAML has it.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        tab = mark is not None and "\t" in _line(text, mark.line)
        hint = "indent with spaces, not tabs" if tab else ""
        raise RecipeError(
            problem, where=f"{builder.name}:{mark.line + 1}:{mark.column + 1}" if mark else builder.name, hint=hint
        ) from error
    except yaml.reader.ReaderError as error:
        what = f"the character {chr(error.character)!a} can't stand in YAML"
        hint = 'write it in quotes as "\\x1b", if it is meant'
        raise RecipeError(
            what, where=_place(builder.name, text, yaml.reader.Reader.NON_PRINTABLE), hint=hint
        ) from error
    # The parser in Python lets a ValueError out for a character beyond Unicode.
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"not YAML: {' '.join(str(error).split())}", where=builder.name) from error


def _place(name: str, text: str, pattern: re.Pattern[str]) -> str:
    """Return ``name:line:column`` of the first match of a pattern in a text."""
    found = pattern.search(text)
    if found is None:
        return name
    start = text.rfind("\n", 0, found.start()) + 1
    return f"{name}:{text.count(chr(10), 0, found.start()) + 1}:{found.start() - start + 1}"


def _line(text: str, index: int) -> str:
    lines = text.splitlines()
    return lines[index] if index < len(lines) else ""
