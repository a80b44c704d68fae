"""What simple models say of images that they haven't learned from: training and validation images out of fold.

Copies and groups stay together in a fold: an image that is there twice under the same wrong label would vouch for
itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.core.files import read_json_object
from imagetune.data.duplicates.groups import components, equal_pairs, members
from imagetune.evaluation.context import Examined
from imagetune.evaluation.features.feature_models import (
    LabelledFeatures,
    fit_probe,
    joined,
    labelled_features,
    probe_loss,
    rows_to_learn_from,
    strengths,
)

FOLDS = 5
# Findings of the image check whose groups belong on one side of a fold.
_ALIKE = frozenset(("identical-images", "near-duplicates", "leak", "conflict"))

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Images of some splits together.

    Attributes:
        taught: Their features and labels.
        splits: (n,) index into ``names``.
        names: Names of the splits.
    """

    taught: LabelledFeatures
    splits: Ints
    names: tuple[str, ...]


def pool_of(run: Examined, names: Sequence[str]) -> Pool | None:
    """Return the images of some splits whose label is known; None where there are none, or no features."""
    found = [(name, labelled_features(run.splits.get(name))) for name in names]
    present = [(name, part) for name, part in found if part is not None]
    if not present:
        return None
    splits = np.concatenate([np.full(len(part), place) for place, (_, part) in enumerate(present)])
    return Pool(joined([part for _, part in present]), splits, tuple(name for name, _ in present))


def units_of(run: Examined, pool: Pool) -> list[int]:
    """Return the unit of each image: images of one group, and copies that the check of the images found."""
    records = [run.splits[pool.names[split]].records[row] for split, row in places_of(pool)]
    place = {record.path: index for index, record in enumerate(records)}
    pairs = [*equal_pairs([record.group for record in records]), *equal_pairs([record.path for record in records])]
    for group in _alike(run.folder / run_files.AUDIT):
        known = [place[path] for path in group if path in place]
        pairs.extend((known[0], other) for other in known[1:])
    return components(len(records), pairs)


def _alike(audit: Path) -> Iterator[list[str]]:
    """Yield the images that the check found to be copies of each other."""
    for finding in read_json_object(audit).get("findings", []):
        if finding.get("code") in _ALIKE:
            yield from finding.get("groups", [])


def places_of(pool: Pool) -> Iterator[tuple[int, int]]:
    """Yield the split, as an index into the pool's names, and the row in it of each image."""
    return zip(pool.splits.tolist(), pool.taught.rows.tolist(), strict=True)


def deal_folds(units: Sequence[int], taught: LabelledFeatures, *, folds: int, seed: int) -> Ints:
    """Return the fold of each image: classes are spread evenly, and what belongs together stays together.

    Args:
        units: For each of n images which unit it belongs to: those of one family or group have the same.
        taught: The images' labels.
        folds: How many folds at most.
        seed: Of the order in which units are dealt.

    Returns:
        (n,) in [0, folds).
    """
    dealt = np.zeros(len(units), np.int64)
    kinds = taught.labels if taught.task != "multi_label" else _rarest_label(taught.targets)
    together = [*members(components(len(units), equal_pairs(units)))]
    order = np.random.default_rng(seed).permutation(len(together))
    # Large units first: small ones then fill up what those left uneven.
    queue = sorted(order.tolist(), key=lambda place: -len(together[place]))
    sizes = np.zeros(folds, np.int64)
    counts: dict[int, Ints] = {}
    for place in queue:
        unit = together[place]
        kind = Counter(kinds[unit].tolist()).most_common(1)[0][0]
        known = counts.setdefault(kind, np.zeros(folds, np.int64))
        fold = int(np.lexsort((sizes, known))[0])
        dealt[unit] = fold
        known[fold] += len(unit)
        sizes[fold] += len(unit)
    return dealt


def out_of_fold(taught: LabelledFeatures, folds: Ints, *, seed: int) -> tuple[float, Floats]:
    """Return what a linear probe says of each image that it did not learn from.

    The penalty is the one that is best for the first fold.

    Args:
        taught: n images.
        folds: (n,) the fold of each.
        seed: Of the images that a probe learns from, where there are very many.

    Returns:
        The probe's strength, and probabilities (n, k).
    """
    predictions = np.zeros_like(taught.targets)
    chosen: float | None = None
    for fold in range(int(folds.max()) + 1):
        rest, held = taught.taken(np.flatnonzero(folds != fold)), taught.taken(np.flatnonzero(folds == fold))
        rest = rest.taken(rows_to_learn_from(rest, seed=seed))
        if chosen is None:
            chosen, predictions[folds == fold] = _best_probe(rest, held)
        else:
            predictions[folds == fold] = fit_probe(rest, chosen)(held.features)
    return chosen or strengths(taught)[0], predictions


def _best_probe(rest: LabelledFeatures, held: LabelledFeatures) -> tuple[float, Floats]:
    best: tuple[float, float, Floats] | None = None
    for strength in strengths(rest):
        said = fit_probe(rest, strength)(held.features)
        loss = probe_loss(said, held)
        if best is not None and loss >= best[0]:
            break
        best = (loss, strength, said)
    assert best is not None  # noqa: S101 - the first one is always better than none
    return best[1], best[2]


def _rarest_label(targets: Floats) -> Ints:
    """Return for each image the rarest of its labels; k where it has none."""
    given = targets >= 0.5
    sizes = np.where(given, given.sum(axis=0), len(given) + 1)
    rarest: Ints = np.where(given.any(axis=1), sizes.argmin(axis=1), targets.shape[1]).astype(np.int64)
    return rarest
