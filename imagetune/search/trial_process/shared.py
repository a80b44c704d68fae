"""Images and search settings that all trials of a search share."""

from __future__ import annotations

from dataclasses import dataclass

from imagetune.recipe.sections.search import SearchConfig
from imagetune.runs.prepare import Data


@dataclass(frozen=True)
class Shared:
    """Images and search settings that every trial's process gets; pickled once for all trials.

    Attributes:
        data: The images and their splits; trials never open the test split.
        config: The ``search`` section, of which trials use objective, folds and early stopping.
    """

    data: Data
    config: SearchConfig

    @property
    def continues_trials(self) -> bool:
        """Whether a trial may go on from the checkpoints of an earlier one, as the rungs of hyperband do."""
        return self.config.algorithm == "hyperband"
