"""Preview of training images: each as the model receives it, beside augmented copies."""

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

    from imagetune.recipe.sections.data import ImageSettings


@dataclass(frozen=True)
class PreviewRow:
    """An image as the model receives it, and augmented copies.

    Attributes:
        label: The label of the image.
        image: ``(height, width, 3)`` uint8 RGB, not augmented.
        copies: Augmented copies of the same shape.
    """

    label: str
    image: npt.NDArray[np.uint8]
    copies: tuple[npt.NDArray[np.uint8], ...]


def pick_records(records: Sequence[Record], count: int) -> tuple[Record, ...]:
    """Return ``count`` records, taken from the classes in turn and spread evenly over each class."""
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
    """Return the preview row of each record, with the augmentation of training.

    Args:
        records: The images; those that can't be decoded are skipped.
        settings: Size, resize method and background, as in training.
        augmentation: Augmentation as in the recipe.
        seed: Seed of the run; copy ``c`` of row ``r`` equals the image of epoch ``c`` and index ``r``.
        copies: Number of augmented copies in each row.
        max_pixels: Larger images are refused.

    Raises:
        DataError: None of the images can be decoded.
    """
    augmenter = build_augmenter(augmentation, settings)
    rows = []
    for index, record in enumerate(records):
        try:
            image = load_image(record.path, settings, max_pixels=max_pixels)
        except BadImageError:
            continue
        augmented = tuple(augmenter(image, seed=(seed, copy, index)) for copy in range(copies))
        rows.append(PreviewRow(record.label, image, augmented))
    if not rows:
        raise DataError("no image can be previewed", hint="`imagetune data check` gives the reason for each image")
    return tuple(rows)
