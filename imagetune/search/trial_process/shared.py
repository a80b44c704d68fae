"""What all trials of a search share."""

from __future__ import annotations

from dataclasses import dataclass

from imagetune.recipe.search import SearchConfig
from imagetune.runs.prepare import Data


@dataclass(frozen=True)
class Shared:
    """What every trial's process gets, pickled once.

    Attributes:
        data: The images and their splits; trials leave the test split closed.
        config: The objective, folds and early stopping.
    """

    data: Data
    config: SearchConfig
