"""The parts of evaluation.json beyond the figures of each split, each made by a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from imagetune.evaluation.examined import Examined

# By its key in evaluation.json. A part that has nothing to say of a run returns None and is left out.
PARTS: Mapping[str, Callable[[Examined], Mapping[str, Any] | None]] = {}


def deep_document(run: Examined) -> dict[str, Any]:
    """Return every part that has something to say of the run: plain JSON values.

    Args:
        run: With its predictions; nothing of its test split is used for a choice.
    """
    found = {name: part(run) for name, part in PARTS.items()}
    return {name: dict(document) for name, document in found.items() if document is not None}
