"""Out-of-fold predictions of a linear probe for training and validation images, by cross-validation.

Near-duplicates and groups stay together in a fold: otherwise an image that occurs twice under the same wrong label
would confirm itself.
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
from imagetune.data.duplicates.groups import find_components, find_equal_pairs, list_group_members
from imagetune.evaluation.context import EvaluationContext
from imagetune.evaluation.features.feature_models import (
    LabelledFeatures,
    collect_labelled_features,
    compute_probe_loss,
    fit_probe,
    join_features,
    list_strengths,
    sample_training_rows,
)

FOLDS = 5
# Findings of the data check whose images are near-duplicates, and so belong into the same fold.
_ALIKE = frozenset(("identical-images", "near-duplicates", "leak", "conflict"))

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """The labelled images of several splits, pooled.

    Attributes:
        taught: Features and labels of the n images.
        splits: (n,) split of each image, as an index into ``names``.
        names: Names of the splits.
    """

    taught: LabelledFeatures
    splits: Ints
    names: tuple[str, ...]


def pool_splits(run: EvaluationContext, names: Sequence[str]) -> Pool | None:
    """Return the pooled images of some splits with a known label; None where there are none, or no features."""
    found = [(name, collect_labelled_features(run.splits.get(name))) for name in names]
    present = [(name, part) for name, part in found if part is not None]
    if not present:
        return None
    splits = np.concatenate([np.full(len(part), place) for place, (_, part) in enumerate(present)])
    return Pool(join_features([part for _, part in present]), splits, tuple(name for name, _ in present))


def find_units(run: EvaluationContext, pool: Pool) -> list[int]:
    """Return the unit of each image, a number: images of a group and near-duplicates of the data check share one."""
    records = [run.splits[pool.names[split]].records[row] for split, row in list_places(pool)]
    place = {record.path: index for index, record in enumerate(records)}
    pairs = [
        *find_equal_pairs([record.group for record in records]),
        # A table may name a file in several rows: they are one image.
        *find_equal_pairs([record.path for record in records]),
    ]
    for group in _alike(run.folder / run_files.AUDIT):
        known = [place[path] for path in group if path in place]
        pairs.extend((known[0], other) for other in known[1:])
    return find_components(len(records), pairs)


def _alike(audit: Path) -> Iterator[list[str]]:
    """Yield the near-duplicate groups that the data check found, as paths."""
    for finding in read_json_object(audit).get("findings", []):
        if finding.get("code") in _ALIKE:
            yield from finding.get("groups", [])


def list_places(pool: Pool) -> Iterator[tuple[int, int]]:
    """Yield the split, as an index into the pool's names, and the row in it of each image."""
    return zip(pool.splits.tolist(), pool.taught.rows.tolist(), strict=True)


def deal_folds(units: Sequence[int], taught: LabelledFeatures, *, folds: int, seed: int) -> Ints:
    """Return the fold of each image: stratified by class, with every unit of dependent images in one fold.

    Args:
        units: Unit of each of n images; those of one near-duplicate group or group share a number.
        taught: Labels of the images.
        folds: Largest number of folds.
        seed: Seed of the order in which units are dealt.

    Returns:
        (n,) in [0, folds).
    """
    dealt = np.zeros(len(units), np.int64)
    # Of several labels the rarest: frequent ones spread over the folds by themselves, a rare one could be missing.
    kinds = taught.labels if taught.task != "multi_label" else _find_rarest_label(taught.targets)
    together = [*list_group_members(find_components(len(units), find_equal_pairs(units)))]
    order = np.random.default_rng(seed).permutation(len(together))
    # Large units first: the small ones then even out the folds' sizes.
    queue = sorted(order.tolist(), key=lambda place: -len(together[place]))
    sizes = np.zeros(folds, np.int64)
    counts: dict[int, Ints] = {}
    for place in queue:
        unit = together[place]
        # A unit of several classes counts as of its most frequent one: it can't be split.
        kind = Counter(kinds[unit].tolist()).most_common(1)[0][0]
        known = counts.setdefault(kind, np.zeros(folds, np.int64))
        # The fold with the fewest images of the class, among equals the smallest one: lexsort's last key comes first.
        fold = int(np.lexsort((sizes, known))[0])
        dealt[unit] = fold
        known[fold] += len(unit)
        sizes[fold] += len(unit)
    return dealt


def predict_out_of_fold(taught: LabelledFeatures, folds: Ints, *, seed: int) -> tuple[float, Floats]:
    """Return the out-of-fold predictions of a linear probe: each image is predicted by a probe of the other folds.

    The penalty is the one that is best for the first fold; choosing it in each fold would take five times as long.

    Args:
        taught: Features and labels of n images.
        folds: (n,) fold of each image.
        seed: Seed of the draw of the images that a probe learns from, where there are very many.

    Returns:
        The probe's strength, and predictions (n, k).
    """
    predictions = np.zeros_like(taught.targets)
    chosen: float | None = None
    for fold in range(int(folds.max()) + 1):
        rest, held = taught.taken(np.flatnonzero(folds != fold)), taught.taken(np.flatnonzero(folds == fold))
        rest = rest.taken(sample_training_rows(rest, seed=seed))
        if chosen is None:
            chosen, predictions[folds == fold] = _fit_best_probe(rest, held)
        else:
            predictions[folds == fold] = fit_probe(rest, chosen)(held.features)
    return chosen or list_strengths(taught)[0], predictions


def _fit_best_probe(rest: LabelledFeatures, held: LabelledFeatures) -> tuple[float, Floats]:
    """Return the strength with the lowest loss on the held-out images, and its predictions for them."""
    best: tuple[float, float, Floats] | None = None
    for strength in list_strengths(rest):
        said = fit_probe(rest, strength)(held.features)
        loss = compute_probe_loss(said, held)
        # Weaker penalties would only over-fit more, as in `baselines.fit_linear_probe_baseline`.
        if best is not None and loss >= best[0]:
            break
        best = (loss, strength, said)
    assert best is not None  # noqa: S101 - the first one is always better than none
    return best[1], best[2]


def _find_rarest_label(targets: Floats) -> Ints:
    """Return for each image the rarest of its labels; k where it has none."""
    given = targets >= 0.5
    # More than any label has: a label that the image lacks is never its rarest.
    sizes = np.where(given, given.sum(axis=0), len(given) + 1)
    rarest: Ints = np.where(given.any(axis=1), sizes.argmin(axis=1), targets.shape[1]).astype(np.int64)
    return rarest
