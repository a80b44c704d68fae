"""A sequential test of whether shares among predictions have changed: e-processes, valid at any time.

An e-process is a bet against "nothing has changed" that is expected not to grow if that is true. By Ville's inequality
it ever reaches 1/alpha with a chance of at most alpha, however often one looks (Ramdas, Gruenwald, Vovk and Shafer,
Statistical Science 38, 2023). The bet is a mixture over the prediction at which the change began, as in e-detectors
(Shin, Ramdas and Rinaldo, New England Journal of Statistics in Data Science 2, 2024), with weights that sum to 1: the
promise then holds for the whole life of a server, not for a mean time between alarms.

What is bet against differs by how the reference was made, and in both cases the reference is as uncertain as its number
of images makes it:

- Counted shares, such as those of predicted classes: reference and stream are compared with the best common share in
  hindsight (universal inference: Wasserman, Ramdas and Balakrishnan, PNAS 117, 2020), so the promise holds for every
  true share.
- Shares beyond an order statistic of the reference, such as a threshold that was chosen to flag 5% of it: the share of
  new images is exactly a beta distribution (David and Nagaraja, Order Statistics, 2003, section 2.5), whatever the
  scores are, so their flags are draws from Polya's urn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import betaln, logsumexp, xlogy

Floats = NDArray[np.float64]
Images = Annotated[float, Field(ge=0, allow_inf_nan=False)]

BLOCK = 50
"""Predictions between two places at which a change may have begun."""
RECENT = 20
"""Latest of these places that are all kept; of earlier ones fewer and fewer, so that memory stays flat."""
# The prior of Krichevsky and Trofimov: its bet loses half a logarithm of the number of images, whatever the share.
_PRIOR = 0.5


@dataclass(frozen=True)
class WatchedShare:
    """A share that is watched, with what its reference says.

    Attributes:
        hits: Images of the reference that count; for an order statistic the first parameter of the beta distribution.
        misses: Images that don't; for an order statistic the second parameter.
        order_statistic: Whether the reference itself has chosen what counts.
        only_above: Whether only a higher share is a change.
        weight: Part of the allowed false alarms that this share may use, in (0, 1].
    """

    hits: Images
    misses: Images
    order_statistic: bool = False
    only_above: bool = False
    weight: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def expected(self) -> float:
        """The share that the reference leads to expect, in [0, 1]."""
        return self.hits / (self.hits + self.misses)


@dataclass(frozen=True)
class Evidence:
    """The evidence against "nothing has changed" for s shares.

    Attributes:
        log_e_values: (s,) natural logarithms of the e-values, those of all shares together taken into account: at
            alpha, an alarm is due from log(1/alpha) on.
        began: (s,) int64, for each share after how many predictions a change most likely began.
        since: (s,) the share among the predictions since then.
    """

    log_e_values: Floats
    began: NDArray[np.int64]
    since: Floats


class ShareChanges:
    """Counts of a stream, as far as they are needed to find a change in one of s shares; not safe between threads."""

    def __init__(self, watched: Sequence[WatchedShare]) -> None:
        exact = np.array([one.order_statistic for one in watched], bool)
        self._exact, self._above = exact, np.array([one.only_above for one in watched], bool)
        self._reference = np.array([(one.hits, one.misses) for one in watched], np.float64).reshape(-1, 2).T
        self._prior = self._reference + np.where(exact, 0.0, _PRIOR)
        self._base = np.where(exact, betaln(*self._prior), betaln(_PRIOR, _PRIOR))
        self._expected = np.array([one.expected for one in watched], np.float64)
        self._log_weights = np.log([one.weight for one in watched])
        self.images = 0
        self.hits = np.zeros(len(watched))
        self._places = [0]
        self._starts = [self.hits.copy()]

    def add(self, hits: Sequence[int]) -> None:
        """Count a prediction, given the shares that it counts for."""
        self.hits[list(hits)] += 1
        self.images += 1
        if self.images % BLOCK == 0:
            self._open(self.images // BLOCK)

    def count_window(self) -> tuple[int, Floats]:
        """Return the number of predictions in the rolling window, and how many of them count for each share (s,)."""
        first = -min(RECENT, len(self._places))
        return self.images - BLOCK * self._places[first], self.hits - self._starts[first]

    def weigh(self) -> Evidence:
        """Return the evidence for a change so far."""
        places, starts = np.array(self._places)[:, None], np.stack(self._starts)
        before = BLOCK * places
        after, hits = self.images - before, self.hits - starts
        shares = hits / np.maximum(after, 1)
        known = betaln(self._prior[0] + starts, self._prior[1] + before - starts) - self._base
        changed = betaln(_PRIOR + hits, _PRIOR + after - hits) - betaln(_PRIOR, _PRIOR)
        bets = known + changed - np.log((places + 1.0) * (places + 2.0))
        # Leaving bets out only makes the sum smaller.
        bets = np.where(self._above & (shares <= self._expected), -np.inf, bets)
        best = bets.argmax(axis=0)
        columns = np.arange(len(self.hits))
        return Evidence(
            np.asarray(logsumexp(bets, axis=0) - self._log_unchanged() + self._log_weights, np.float64),
            before[best, 0].astype(np.int64),
            shares[best, columns],
        )

    def _log_unchanged(self) -> Floats:
        """Return the log-likelihood (s,) of the stream, or of reference and stream, if nothing has changed."""
        urn = betaln(self._prior[0] + self.hits, self._prior[1] + self.images - self.hits) - self._base
        hits, misses = self._reference[0] + self.hits, self._reference[1] + self.images - self.hits
        total = np.maximum(hits + misses, 1)
        best = xlogy(hits, hits / total) + xlogy(misses, misses / total)
        unchanged: Floats = np.where(self._exact, urn, best)
        return unchanged

    def _open(self, place: int) -> None:
        """Remember a place at which a change may begin, and forget some of the earlier ones."""
        self._places.append(place)
        self._starts.append(self.hits.copy())
        kept = [_is_kept(one, place) for one in self._places]
        self._starts = [start for start, keep in zip(self._starts, kept, strict=True) if keep]
        self._places = [one for one, keep in zip(self._places, kept, strict=True) if keep]


def _is_kept(place: int, latest: int) -> bool:
    # Twice as far back, half as dense. Which ones are kept doesn't depend on the predictions, so no bet is favoured.
    return place % (1 << ((latest - place) // RECENT).bit_length()) == 0
