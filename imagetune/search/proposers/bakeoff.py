"""Trials of a bake-off: a linear probe of every backbone, then fine-tunings of the best few."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence

from imagetune.recipe.document import NodePath
from imagetune.search.proposers.finalists import Candidate
from imagetune.search.proposers.protocol import Turn
from imagetune.search.proposers.sweep import list_points
from imagetune.search.records.trial import Trial, TrialResult
from imagetune.search.space import Spaces

# What may differ between the probes of a bake-off.
BACKBONE_PATHS: tuple[NodePath, ...] = (("model",), ("model", "backbone"))
OTHER_PATHS: tuple[NodePath, ...] = (("model", "weights"), ("data", "image_size"))


class ProbeProposer:
    """A proposer of probes, one at a time: in parallel they would distort the measured latencies.

    Args:
        trials: Probes from ``probes_of``.
    """

    def __init__(self, trials: Iterable[Trial]) -> None:
        self._waiting = deque(trials)
        self._open: set[str] = set()

    def ask(self) -> Trial | Turn:
        """Return the next probe, once the one before has ended."""
        if self._open:
            return Turn.WAIT
        if not self._waiting:
            return Turn.OVER
        trial = self._waiting.popleft()
        self._open.add(trial.trial_id)
        return trial

    def tell(self, trial: Trial, objective: float | None) -> None:
        """Let the next probe start."""
        del objective
        self._open.discard(trial.trial_id)


def list_probes(spaces: Spaces) -> list[Trial]:
    """Return a probe for every combination of backbone, weights and image size, a backbone's in a row."""
    points = itertools.product(*(list_points(space) for space in spaces.values()))
    return [
        Trial(f"{number:03d}", dict(zip(spaces, values, strict=True))) for number, values in enumerate(points, start=1)
    ]


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


def select_compared(results: Sequence[TrialResult], algorithm: str) -> list[TrialResult]:
    """Return the trials among which the winner is chosen.

    These are all, except in a bake-off that has fine-tuned: a probe's metric can't be compared with a training's.
    """
    finals = [result for result in results if result.trial.phase == "final"]
    return finals if algorithm == "bakeoff" and finals else [*results]
