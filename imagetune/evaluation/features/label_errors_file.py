"""What is written of suspected label errors, be they classes or numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from imagetune.core import run_files
from imagetune.core.files import write_csv
from imagetune.evaluation.features.out_of_fold import Pool

# evaluation.json names so many; the CSV file names all.
MAX_LISTED = 200


class Judged(Protocol):
    """An image whose label is suspected."""

    @property
    def confident(self) -> bool:
        """Whether the label is probably wrong, not only suspected."""
        ...


D = TypeVar("D", bound=Judged)


def label_errors_document(pool: Pool, suspects: Sequence[D], listed: Callable[[D], dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON value of the suspects about some splits: how many there are, and the first `MAX_LISTED`.

    Args:
        pool: The images that were judged.
        suspects: Those whose label is suspected, the surest first.
        listed: What is told of one.
    """
    return {
        "splits": list(pool.names),
        "images": len(pool.taught),
        "found": len(suspects),
        "confident": sum(suspect.confident for suspect in suspects),
        "suspects": [listed(suspect) for suspect in suspects[:MAX_LISTED]],
    }


def write_label_errors(folder: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write `run_files.LABEL_ERRORS` into a run folder; paths that are no UTF-8 go as they are."""
    write_csv(folder / run_files.LABEL_ERRORS, header, rows)
