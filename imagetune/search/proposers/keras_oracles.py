"""KerasTuner's oracles (of version 1.4.8), adapted to warm starts, parallel trials and resuming from our journal.

- They begin with chosen settings: the recipe's defaults or the best of an earlier search.
- They leave out settings that earlier searches have tried.
- They write no files: a search is resumed from its journal.
- The grid doesn't wait for a trial to end before it proposes the next point: all spaces are known from the beginning.
- Hyperband repeats settings where a small space has no new one left, instead of ending.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import keras_tuner

# KerasTuner gives up after 20 settings that it has tried before, which in a small space comes before all are tried.
_MAX_COLLISIONS = 1000


class MendedOracle(keras_tuner.Oracle):
    """Base of the adapted oracles: chosen first proposals, excluded ones, and no files.

    Args:
        first: Proposals to begin with, in KerasTuner's form.
        tried: Proposals that are excluded, in the same form.
        settings: Arguments of KerasTuner's oracle.
    """

    def __init__(
        self, *, first: Iterable[Mapping[str, Any]] = (), tried: Iterable[Mapping[str, Any]] = (), **settings: Any
    ) -> None:
        super().__init__(**settings)
        self.verbose = 0
        self._max_collisions = _MAX_COLLISIONS
        self._first = deque(dict(values) for values in first)
        self._tried_so_far: set[str] = {self._compute_values_hash(values) for values in tried}

    def save(self) -> None:
        """Write no oracle.json: the journal replaces it."""

    def _save_trial(self, trial: Any) -> None:
        """Write no trial.json, for the same reason."""

    def _random_values(self) -> dict[str, Any] | None:
        while self._first:
            values = self._first.popleft()
            if not self._duplicate(values):
                return values
        values = super()._random_values()
        return None if values is None else dict(values)


class RandomOracle(MendedOracle, keras_tuner.oracles.RandomSearchOracle):
    """Random search that begins with chosen settings."""


class GridOracle(MendedOracle, keras_tuner.oracles.GridSearchOracle):
    """Grid search over all points in a fixed order; it ignores `first` and `tried`."""

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Return the next point of the grid."""
        response: dict[str, Any] = super().populate_space(trial_id)
        # KerasTuner adds a trial there when it has ended, and has no next point before that.
        if response["status"] == "RUNNING" and trial_id not in self._populate_next:
            self._populate_next.append(trial_id)
        return response


class HyperbandOracle(MendedOracle, keras_tuner.oracles.HyperbandOracle):
    """Hyperband that begins with chosen settings and repeats settings of an exhausted space."""

    def _random_values(self) -> dict[str, Any] | None:
        values = super()._random_values()
        if values is None:
            # Without a proposal KerasTuner would end the search with its brackets half full.
            tried: set[str] = self._tried_so_far
            self._tried_so_far = set()
            values = super()._random_values()
            self._tried_so_far = tried
        return values
