"""Versions of the file formats that a later imagetune reads again: ``format_version`` in each such document.

A number goes up with a change that earlier versions would read wrongly; the earlier number is then still read. A run
folder of each is under tests/fixtures/formats, and is kept for good. The formats that carry one are those of run
folders (lock.json), models (model/manifest.json), checkpoints (state.json), searches (search.json), exports
(manifest.json), evaluation.json, a comparison's and a profile's JSON, and the rows that `predict` keeps. The rest of a
run folder goes by its lock.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagetune.core.version import DISTRIBUTION, read_version
from imagetune.errors import ImagetuneError, ModelFileError

FORMAT_VERSION = "format_version"
"""The key."""
CURRENT = 1
"""Version of all formats so far."""


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
    found = document.get(FORMAT_VERSION, CURRENT)
    if isinstance(found, bool) or found not in range(1, CURRENT + 1):
        what = f"has format version {str(found)[:20]}, and imagetune {read_version()} reads up to {CURRENT}"
        hint = f"use the imagetune that wrote it, or a newer one: pip install --upgrade {DISTRIBUTION}"
        raise error(what, where=str(where), hint=hint)
