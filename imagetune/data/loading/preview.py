"""What goes into the model, for people to look at: images as they are, and their augmented copies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from imagetune.data.loading.augmentation import build_augmenter
from imagetune.data.loading.decode import load_image
from imagetune.data.sources.records import Record
from imagetune.errors import BadImageError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from imagetune.recipe.data import ImageSettings


@dataclass(frozen=True)
class PreviewRow:
    """An image as the model gets it, without augmentation and with it.

    Attributes:
        label: Its class.
        image: (height, width, 3) uint8 RGB, unaugmented.
        copies: Augmented ones, of the same shape.
    """

    label: str
    image: npt.NDArray[np.uint8]
    copies: tuple[npt.NDArray[np.uint8], ...]


def pick_records(records: Sequence[Record], count: int) -> tuple[Record, ...]:
    """Return ``count`` records, turn by turn from each class, spread evenly over its images."""
    by_label: dict[str, list[Record]] = {}
    for record in records:
        by_label.setdefault(record.label, []).append(record)
    if not by_label:
        return ()
    rounds = -(-count // len(by_label))
    turns = [
        [found[place * len(found) // rounds] for found in (by_label[label] for label in sorted(by_label))]
        for place in range(rounds)
    ]
    return tuple(dict.fromkeys(record for turn in turns for record in turn))[:count]


def load_preview(
    records: Sequence[Record],
    *,
    settings: ImageSettings,
    augmentation: str | Sequence[Mapping[str, Any]],
    seed: int,
    copies: int,
    max_pixels: int,
) -> tuple[PreviewRow, ...]:
    """Return each record's image as the model gets it, with augmented copies as training makes them.

    Args:
        records: The images; those that can't be decoded are left out.
        settings: Size, resizing and background, as in training.
        augmentation: As in the recipe.
        seed: Seed of the run; copy ``v`` of row ``r`` is what epoch ``v`` makes of index ``r``.
        copies: Augmented copies a row.
        max_pixels: Larger images are refused.

    Raises:
        DataError: Not one of the images can be decoded.
    """
    augmenter = build_augmenter(augmentation, settings)
    rows = []
    for index, record in enumerate(records):
        try:
            image = load_image(record.path, settings, max_pixels=max_pixels)
        except BadImageError:
            continue
        augmented = tuple(augmenter(image, seed=(seed, view, index)) for view in range(copies))
        rows.append(PreviewRow(record.label, image, augmented))
    if not rows:
        raise DataError("there is no image to preview", hint="`imagetune data check` says why")
    return tuple(rows)
