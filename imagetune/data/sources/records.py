"""Record: an image of a data source with its label, split, group and slices."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """An image of a data source, with its annotations.

    Attributes:
        path: Absolute path of the file, which may not exist.
        label: Class name, "" when it is unknown; for multi_label several names, sorted and joined by the separator,
            "" for none; for regression a number as text.
        split: ``train``, ``val`` or ``test``, None where the source doesn't assign one.
        group: Name of the group that a split must not part, such as a patient; None without one.
        slices: Name and value of each column of ``data.columns.slices``; "" for an empty cell.
    """

    path: str
    label: str
    split: str | None = None
    group: str | None = None
    slices: tuple[tuple[str, str], ...] = ()
