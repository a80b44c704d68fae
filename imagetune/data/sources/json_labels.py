"""JSON label files (sidecars) beside images: ``{"labels": [...]}``, ``{"label": "..."}`` or ``{"value": 1.5}``.

A file has the name of its image with the suffix ``.json``. Other keys are ignored.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imagetune.core.files import is_file
from imagetune.core.path_names import find_spelling
from imagetune.core.text import format_count
from imagetune.data.sources.labels import format_exact_number, join_labels, parse_number, require_plain
from imagetune.data.sources.records import Record
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.sections.data import DataConfig

MAX_BYTES = 1 << 20


def build_sidecar_path(image: str) -> Path:
    """Return the path of an image's JSON label file, which may not exist."""
    return Path(find_spelling(str(Path(image).with_suffix(".json"))))


def has_sidecars(images: Iterable[str]) -> bool:
    """Return whether any of the images has a JSON label file beside it."""
    return any(is_file(build_sidecar_path(image)) for image in images)


def read_sidecars(images: Sequence[str], config: DataConfig, *, split: str | None) -> list[Record]:
    """Return a record for each image, with the label in its JSON file.

    Raises:
        DataError: An image has no JSON file, or a file lacks the key that the task needs; the error names the file.
    """
    missing = [image for image in images if not is_file(build_sidecar_path(image))]
    if missing:
        others = f" (and {format_count(len(missing) - 1, 'other image')})" if missing[1:] else ""
        what = f"has no {build_sidecar_path(missing[0]).name} beside it, as other images have{others}"
        raise DataError(what, where=missing[0], hint="write that file, or move the image elsewhere")
    return [Record(image, _read_label(build_sidecar_path(image), config), split) for image in images]


def _read_label(path: Path, config: DataConfig) -> str:
    content = _read_object(path)
    if config.task == "multi_label":
        return _parse_labels(content, path, config.label_separator)
    if config.task == "regression":
        return _parse_value(content, path)
    label = content.get("label")
    if not isinstance(label, str) or not label.strip():
        raise _build_key_error(path, content, "label", 'a class name, as in {"label": "cat"}')
    return unicodedata.normalize("NFC", label)


def _parse_labels(content: dict[str, Any], path: Path, separator: str) -> str:
    labels = content.get("labels", [content["label"]] if "label" in content else None)
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise _build_key_error(path, content, "labels", 'a list of class names, as in {"labels": ["cat", "dog"]}')
    for label in labels:
        require_plain(label, separator, where=str(path))
    return join_labels((unicodedata.normalize("NFC", label) for label in labels), separator)


def _parse_value(content: dict[str, Any], path: Path) -> str:
    value = content.get("value")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _build_key_error(path, content, "value", 'a number, as in {"value": 2.5}')
    # An integer in JSON may be larger than any float.
    number = parse_number(str(value))
    if number is None:
        raise _build_key_error(path, content, "value", "a finite number")
    return format_exact_number(number)


def _build_key_error(path: Path, content: dict[str, Any], key: str, expected: str) -> DataError:
    found = f"has {key!r}: {content[key]!r}" if key in content else f"has no {key!r}"
    return DataError(f"{found}; expected {expected}", where=str(path))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"is larger than {MAX_BYTES} bytes, too large for a label file", where=str(path))
        content = json.loads(path.read_bytes())
        # JSON may escape half of a character that takes two, which no file of ours could hold.
        json.dumps(content, ensure_ascii=False).encode()
    except OSError as error:
        raise DataError(f"can't be read: {error.strerror}", where=str(path)) from error
    # Deep nesting exhausts Python's stack before it is found to be invalid.
    except (ValueError, RecursionError) as error:
        raise DataError(f"is not JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise DataError('is not a JSON object; expected one such as {"labels": ["cat", "dog"]}', where=str(path))
    return content
