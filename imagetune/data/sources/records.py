"""One image of a source, with what the source says of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One image.

    Attributes:
        path: Absolute path of the file; it may turn out not to exist.
        label: Class name, or "" when it is not known; several, sorted and joined with the separator, for multi_label,
            where "" means none; a number's text for regression.
        split: ``train``, ``val`` or ``test`` when the source says so.
        group: What must stay on one side of the split, when the source says so.
        slices: Name and value of each column of ``data.columns.slices``; "" for an empty cell.
    """

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    slices: tuple[tuple[str, str], ...] = ()
