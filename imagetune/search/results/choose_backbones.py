"""Choice of the backbones that a bake-off fine-tunes: the best probes, or the quickest or smallest of those as good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from imagetune.core import run_files
from imagetune.errors import SearchError
from imagetune.evaluation.cross_validation import estimate_fold_mean
from imagetune.recipe.sections.search import SearchConfig
from imagetune.search.proposers.finalists import Candidate, Direction
from imagetune.search.results.bakeoff import BackboneResult, rank_backbones

# Coverage of one standard error to each side.
_ONE_STANDARD_ERROR = 0.683


def choose_finalists(
    candidates: Sequence[Candidate], *, folder: Path, config: SearchConfig, direction: Direction
) -> list[Candidate]:
    """Return the probes whose backbones are fine-tuned, the first choice first.

    With ``search.prefer: speed`` or ``size`` it is one: of those within a standard error of the best probe (Breiman et
    al. 1984) the one with the lowest latency or the smallest size.

    Args:
        candidates: The probes that have a metric.
        folder: Run folder of the search.
        config: The ``search`` section.
        direction: Whether a smaller or a larger metric is better.

    Raises:
        SearchError: Every backbone is slower than ``search.max_latency_ms``.
    """
    probed = rank_backbones(folder, [result for candidate in candidates for result in candidate.results], direction)
    rows = _drop_slow(probed, config.max_latency_ms, folder)
    if config.prefer != "accuracy":
        cost = "milliseconds" if config.prefer == "speed" else "megabytes"
        as_good = [row for row in rows if _is_as_good(row, rows[0], direction)]
        rows = [min(as_good, key=lambda row: float(getattr(row, cost)))]
    by_trial = {candidate.trial.trial_id: candidate for candidate in candidates}
    return [by_trial[row.result.trial.trial_id] for row in rows[: config.finalists]]


def _drop_slow(rows: Sequence[BackboneResult], limit: float | None, folder: Path) -> Sequence[BackboneResult]:
    if limit is None:
        return rows
    if quick := [row for row in rows if row.milliseconds <= limit]:
        return quick
    fastest = min(rows, key=lambda row: row.milliseconds)
    what = f"no backbone takes at most {limit:g} ms for an image; the fastest is {fastest.name}"
    raise SearchError(
        f"{what} with {fastest.milliseconds:.1f} ms on this machine",
        where=str(folder / run_files.SEARCH_TABLE),
        hint="raise search.max_latency_ms, or offer smaller images or a smaller backbone",
    )


def _is_as_good(row: BackboneResult, best: BackboneResult, direction: Direction) -> bool:
    """Return whether a probe is at most one standard error of the paired difference worse than the best one."""
    if row is best or row.probe is None or best.probe is None:
        return row is best
    own, other = (np.array(probe.metrics_by_fold, np.float64) for probe in (row, best))
    worse = own - other if direction == "min" else other - own
    found = estimate_fold_mean(worse, left_out=row.probe["left_out_ratio"], confidence=_ONE_STANDARD_ERROR)
    return (found.low or 0.0) <= 0.0
