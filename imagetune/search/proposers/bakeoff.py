"""Trials of a bake-off: a linear probe of every backbone, then fine-tunings of the best few."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Container, Iterator, Mapping, Sequence
from operator import itemgetter

from imagetune.recipe.document import NodePath
from imagetune.recipe.sections.search import SearchConfig, Value
from imagetune.search.proposers.finalists import Candidate, Direction
from imagetune.search.proposers.protocol import Turn
from imagetune.search.proposers.sweep import list_points
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.space import Spaces

# What may differ between the probes of a bake-off.
BACKBONE_PATHS: tuple[NodePath, ...] = (("model",), ("model", "backbone"))
OTHER_PATHS: tuple[NodePath, ...] = (("model", "weights"), ("data", "image_size"))
# Backbones in the second round of probes, for each that is fine-tuned.
_KEPT_FOR_EACH_FINALIST = 2


class ProbeProposer:
    """A proposer of probes, one at a time: in parallel they would distort the measured latencies.

    Every backbone is probed with the first weights and image size, and then the best ones with the others, which is a
    successive halving (Jamieson and Talwalkar 2016) in two rounds.

    Args:
        spaces: The search spaces.
        keep: How many backbones the second round has.
        direction: Whether a smaller or a larger metric is better.
    """

    def __init__(self, spaces: Spaces, *, keep: int, direction: Direction) -> None:
        self._spaces = spaces
        self._keep = keep
        self._sign = 1.0 if direction == "min" else -1.0
        self._waiting = deque(_list_settings(spaces, fixed=OTHER_PATHS))
        self._scores: list[tuple[float, Mapping[NodePath, Value]]] = []
        self._open: Trial | None = None
        self._asked = 0
        self._halved = False

    def ask(self) -> Trial | Turn:
        """Return the next probe, once the one before has ended."""
        if self._open is not None:
            return Turn.WAIT
        if not self._waiting and not self._halved:
            self._halved = True
            self._waiting.extend(self._list_second_round())
        if not self._waiting:
            return Turn.OVER
        self._asked += 1
        self._open = Trial(f"{self._asked:03d}", self._waiting.popleft())
        return self._open

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Let the next probe start."""
        self._open = None
        if objective is not None and not self._halved:
            self._scores.append((self._sign * objective, trial.values))

    def _list_second_round(self) -> Iterator[dict[NodePath, Value]]:
        # Stable, so that of equals the earlier is kept.
        for _, tried in sorted(self._scores, key=itemgetter(0))[: self._keep]:
            for settings in _list_settings(self._spaces, fixed=BACKBONE_PATHS):
                own = {**settings, **{path: value for path, value in tried.items() if path in BACKBONE_PATHS}}
                if own != tried:
                    yield own


def count_kept(config: SearchConfig) -> int:
    """Return how many backbones a bake-off probes at all image sizes."""
    return _KEPT_FOR_EACH_FINALIST * max(1, config.finalists)


def count_probes(spaces: Spaces, *, keep: int) -> int:
    """Return how many probes a bake-off has, if none fails.

    Args:
        spaces: The search spaces.
        keep: As of `ProbeProposer`.
    """
    backbones = len(_list_settings(spaces, fixed=OTHER_PATHS))
    others = len(_list_settings(spaces, fixed=BACKBONE_PATHS)) - 1
    return backbones + min(keep, backbones) * others


def _list_settings(spaces: Spaces, *, fixed: Container[NodePath]) -> list[dict[NodePath, Value]]:
    """Return all combinations of the spaces' values; of those in ``fixed`` only the first."""
    values = [list_points(space)[:1] if path in fixed else list_points(space) for path, space in spaces.items()]
    return [dict(zip(spaces, point, strict=True)) for point in itertools.product(*values)]


def list_fine_tunings(finalists: Sequence[Candidate], *, repeats: int, seed: int) -> list[Trial]:
    """Return the fine-tunings of the best backbones, all with the recipe's seed first.

    Args:
        finalists: The best probes.
        repeats: How many trainings each backbone has.
        seed: The recipe's seed; the further trainings get the seeds that follow it.

    Returns:
        Trials named after their probe: ``003-1``, and with more seeds ``003-2``, ...
    """
    return [
        Trial(
            f"{finalist.trial.trial_id}-{extra + 1}",
            finalist.trial.values,
            phase="final",
            seed=seed + extra if extra else None,
            repeats=f"{finalist.trial.trial_id}-1" if extra else None,
        )
        # Seed by seed: what an early end leaves out is the last seeds, not whole backbones.
        for extra in range(repeats)
        for finalist in finalists
    ]


def get_probe_id(trial: Trial) -> str:
    """Return the name of a fine-tuning's probe."""
    return trial.trial_id.partition("-")[0]


def select_compared(results: Sequence[TrialResult], algorithm: str) -> list[TrialResult]:
    """Return the trials among which the winner is chosen.

    These are all, except in a bake-off that has fine-tuned: a probe's metric can't be compared with a training's.
    """
    finals = [result for result in results if result.trial.phase == "final"]
    return finals if algorithm == "bakeoff" and finals else [*results]
