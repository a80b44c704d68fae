"""What is written of doubted labels, be they classes or numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from imagetune.core import run_files
from imagetune.core.files import write_csv
from imagetune.evaluation.features.out_of_fold import Pool

# evaluation.json names so many; the CSV file names all.
MOST_LISTED = 200


class Judged(Protocol):
    """A picture whose label is doubted."""

    @property
    def confident(self) -> bool:
        """Whether the label is probably wrong, not only doubted."""
        ...


D = TypeVar("D", bound=Judged)


def doubts_document(pool: Pool, doubts: Sequence[D], listed: Callable[[D], dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON value of the doubts about some splits: how many there are, and the first `MOST_LISTED`.

    Args:
        pool: The pictures that were judged.
        doubts: Those whose label is doubted, the surest first.
        listed: What is told of one.
    """
    return {
        "splits": list(pool.names),
        "pictures": len(pool.taught),
        "found": len(doubts),
        "confident": sum(doubt.confident for doubt in doubts),
        "doubts": [listed(doubt) for doubt in doubts[:MOST_LISTED]],
    }


def write_doubts(folder: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write `run_files.LABEL_ERRORS` into a run folder; paths that are no UTF-8 go as they are."""
    write_csv(folder / run_files.LABEL_ERRORS, header, rows)
