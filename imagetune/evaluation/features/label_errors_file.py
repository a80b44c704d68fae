"""The output of suspected label errors, of classes and of numbers: their JSON value and ``label_errors.csv``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from scipy.stats import binom

from imagetune.core import run_files
from imagetune.core.csv_tables import write_csv
from imagetune.evaluation.features.out_of_fold import Pool

# evaluation.json lists at most this many, which the report can show; the CSV file lists all.
MAX_LISTED = 200
_CHANCE = 0.01


class SuspectedLabel(Protocol):
    """An image whose label is suspected."""

    @property
    def confident(self) -> bool:
        """Whether a second method confirms the suspicion."""
        ...


D = TypeVar("D", bound=SuspectedLabel)


def describe_label_errors(
    pool: Pool,
    suspects: Sequence[D],
    listed: Callable[[D], dict[str, Any]],
    *,
    expected: dict[str, float],
    marked: bool = True,
) -> dict[str, Any]:
    """Return the JSON value of the suspects in some splits: their number, and the first `MAX_LISTED` of them.

    Args:
        pool: All images that were examined.
        suspects: Those whose label is suspected, the most suspected first.
        listed: Returns the JSON value of one suspect.
        expected: How many would be found, and how many of them confirmed, if every label were right.
        marked: Whether confirmed suspects are marked; else the suspects are a ranking only.
    """
    return {
        "splits": list(pool.names),
        "images": len(pool.taught),
        "found": len(suspects),
        "confident": sum(suspect.confident for suspect in suspects),
        "marked": bool(marked),
        "expected_false_alarms": expected,
        "beyond_chance": is_beyond_chance(len(suspects), len(pool.taught), expected["found"]),
        "suspects": [listed(suspect) for suspect in suspects[:MAX_LISTED]],
    }


def is_beyond_chance(found: int, images: int, expected: float) -> bool:
    """Return whether more labels are suspected than right ones would be by chance: a binomial test at 1%."""
    return bool(found > 0 and binom.sf(found - 1, images, min(expected / max(images, 1), 1.0)) < _CHANCE)


def write_label_errors(folder: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write all suspects as `run_files.LABEL_ERRORS` into a run folder; paths that aren't UTF-8 keep their bytes."""
    write_csv(folder / run_files.LABEL_ERRORS, header, rows)
