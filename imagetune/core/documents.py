"""JSON documents of a run folder, which others may have written: held to their stated shape before anything uses them.

A shape is a pydantic adapter of a ``TypedDict``; what it doesn't name is left as it is, and is read under
`name_foreign_document`, which says of which file a surprise comes.

Documents that a later imagetune reads again carry ``format_version``. The number goes up with a change that earlier
versions would read wrongly; the earlier number is then still read, and what each has written stays under
tests/fixtures/formats. The formats that carry one are those of run folders (lock.json), models (model/manifest.json),
checkpoints (state.json), receipts, searches (search.json), exports (manifest.json), evaluation.json, a comparison's and
a profile's JSON, and the rows that `predict` keeps. The rest of a run folder goes by its lock.json.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import TypeAdapter, ValidationError

from imagetune.core.files import (
    MAX_JSON_BYTES,
    format_json,
    parse_json_lines,
    parse_json_object,
    read_bounded_bytes,
    read_json,
)
from imagetune.core.version import DISTRIBUTION, read_version
from imagetune.errors import ImagetuneError, ModelFileError

FORMAT_VERSION = "format_version"
"""The key."""
CURRENT_FORMAT = 1
"""Version of all formats so far."""
Shape: TypeAlias = "TypeAdapter[Any]"
HINT = "copy the folder again from where it was made; files of a run aren't written by hand"
_SHOWN = 60
_SEAL = "sha256"
# What code raises that meets a value of another kind than the one that imagetune writes.
SURPRISES = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


def read_document(path: Path, shape: Shape, *, error: type[ImagetuneError] = ModelFileError) -> dict[str, Any]:
    """Return the JSON object in a file, which has the stated shape; empty where there is no such file.

    Args:
        path: The file.
        shape: Shape of the object.
        error: The error to raise.

    Raises:
        ImagetuneError: The ``error`` given: the file can't be read, isn't JSON, is of a later version, or a field isn't
            what imagetune writes.
    """
    try:
        value = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as problem:
        raise _build_error(problem, path, error) from problem
    if isinstance(value, dict):
        # First: what a later version writes otherwise isn't foreign.
        check_format_version(value, path, error=error)
    return check_document(value, shape, path, error=error)


def read_document_lines(
    path: Path, shape: Shape, *, error: type[ImagetuneError] = ModelFileError
) -> list[dict[str, Any]]:
    """Return the objects in a JSON-lines file, each of the stated shape, without a last line that was cut short.

    Raises:
        ImagetuneError: As `read_document`; a line is named by its number.
    """
    try:
        lines = list(parse_json_lines(read_bounded_bytes(path, max_bytes=MAX_JSON_BYTES)))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as problem:
        raise _build_error(problem, path, error) from problem
    return [check_document(line, shape, f"{path}:{number}", error=error) for number, line in lines]


def check_format_version(
    document: Mapping[str, Any], where: Path | str, *, error: type[ImagetuneError] = ModelFileError
) -> None:
    """Check that a document is of a format that this version reads; one without a number is of the first.

    Args:
        document: The document.
        where: Its file or folder.
        error: The error to raise.

    Raises:
        ImagetuneError: The ``error`` given: the number is that of a later version, or is none.
    """
    found = document.get(FORMAT_VERSION, CURRENT_FORMAT)
    if isinstance(found, bool) or found not in range(1, CURRENT_FORMAT + 1):
        what = f"has format version {str(found)[:20]}, and imagetune {read_version()} reads up to {CURRENT_FORMAT}"
        hint = f"use the imagetune that wrote it, or a newer one: pip install --upgrade {DISTRIBUTION}"
        raise error(what, where=str(where), hint=hint)


def check_document(
    value: Any, shape: Shape, where: Path | str, *, error: type[ImagetuneError] = ModelFileError
) -> dict[str, Any]:
    """Return a JSON object unchanged, once it has the stated shape.

    Raises:
        ImagetuneError: The ``error`` given; it names the first field that is of another kind, and what was expected.
    """
    try:
        # What it returns is left: it has the declared fields first, and documents are written back in their own order.
        shape.validate_python(value, strict=True)
    except ValidationError as problem:
        first = problem.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        found = repr(first["input"])[:_SHOWN]
        what = f"isn't what imagetune writes: {f'field {field}' if field else 'the document'}: {first['msg']}"
        raise error(f"{what}; it is {found}", where=str(where), hint=HINT) from problem
    checked: dict[str, Any] = value
    return checked


@contextmanager
def name_foreign_document(where: Path, what: str) -> Iterator[None]:
    """Say of which document a surprise in the block comes: one that imagetune wrote has no values that surprise it.

    Args:
        where: The file or folder.
        what: The part of it that the block reads, in words.

    Raises:
        ModelFileError: The block raised what values of another kind, missing or impossible ones, lead to.
    """
    try:
        yield
    except SURPRISES as problem:
        notes = "".join(f", {note}" for note in getattr(problem, "__notes__", ()))
        reason = f"{type(problem).__name__}: {str(problem)[:_SHOWN]}{notes}"
        raise ModelFileError(f"{what} isn't what imagetune writes: {reason}", where=str(where), hint=HINT) from problem


def _build_error(problem: OSError | ValueError, path: Path, error: type[ImagetuneError]) -> ImagetuneError:
    reason = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
    return error(f"can't be read: {reason}", where=str(path), hint=HINT)


def seal_document(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document with its own SHA-256 in it, so that a file that no other vouches for can be verified."""
    text = format_json(document)
    return {**document, _SEAL: hashlib.sha256(text.encode()).hexdigest()}


def find_broken_seal(content: bytes) -> str:
    """Return how a file that holds a sealed document differs from what was written; empty where it doesn't.

    Every byte counts, also those that change no value.
    """
    try:
        document = parse_json_object(content)
    except ValueError as error:
        return f"another content: {error}"
    rest = {name: value for name, value in document.items() if name != _SEAL}
    if format_json(seal_document(rest)).encode() != content:
        return f"another content: its {_SEAL} doesn't hold"
    return ""
