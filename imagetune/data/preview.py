"""A contact sheet: what goes into the model, before and after augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imagetune.data.augmentation import build_augmenter
from imagetune.data.decode import load_picture
from imagetune.data.sources.records import Record
from imagetune.errors import BadPictureError, DataError

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.recipe.data import ImageSettings

_GAP = 6
_APART = 24
_TEXT = 14
_LINE = 18
_LEAST_CELL = 96
_PAPER = (238, 240, 243)
_INK = (32, 36, 42)
_FAINT = (110, 116, 124)


def pick_records(records: Sequence[Record], count: int) -> tuple[Record, ...]:
    """Return ``count`` records, turn by turn from each class, spread evenly over its pictures."""
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


def draw_contact_sheet(
    records: Sequence[Record],
    *,
    image: ImageSettings,
    augmentation: str | Sequence[Mapping[str, Any]],
    seed: int,
    views: int,
    max_pixels: int,
) -> npt.NDArray[np.uint8]:
    """Draw a row for each record: on the left as the model gets it unaugmented, on the right augmented views.

    Args:
        records: The pictures; those that can't be decoded are left out.
        image: Size, resizing and background, as in training.
        augmentation: As in the recipe.
        seed: Seed of the run; view ``v`` of row ``r`` is what epoch ``v`` makes of index ``r``.
        views: Augmented views a row.
        max_pixels: Larger pictures are refused.

    Returns:
        ``(h, w, 3)`` uint8 RGB.

    Raises:
        DataError: Not one of the pictures can be decoded.
    """
    augmenter = build_augmenter(augmentation, image)
    rows: list[tuple[str, list[npt.NDArray[np.uint8]]]] = []
    for index, record in enumerate(records):
        try:
            picture = load_picture(record.path, image, max_pixels=max_pixels)
        except BadPictureError:
            continue
        copies = [augmenter(picture, seed=(seed, view, index)) for view in range(views)]
        rows.append((record.label, [picture, *copies]))
    if not rows:
        raise DataError("there is no picture to preview", hint="`imagetune data check` says why")
    name = augmentation if isinstance(augmentation, str) else ", ".join(next(iter(entry)) for entry in augmentation)
    size = f"{image.width} x {image.height}, {image.resize}"
    return _drawn(rows, image, f"as the model gets it ({size})", f"augmented: {name}")


def _drawn(
    rows: list[tuple[str, list[npt.NDArray[np.uint8]]]], image: ImageSettings, left: str, right: str
) -> npt.NDArray[np.uint8]:
    font = ImageFont.load_default(size=_TEXT)
    # Small pictures are enlarged by whole steps, so that their pixels stay what they are.
    zoom = max(1, -(-_LEAST_CELL // image.width))
    width, height = image.width * zoom, image.height * zoom
    titles = max(1, *(len(_wrapped(title, font, space)) for title, space in _columns(left, right, rows, width)))
    top = _GAP + titles * _LINE + _GAP
    count = len(rows[0][1])
    across = _GAP + width + (_APART - _GAP if count > 1 else 0) + (count - 1) * (width + _GAP) + _GAP
    sheet = Image.new("RGB", (across, top + len(rows) * (_LINE + height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for (title, space), at in zip(_columns(left, right, rows, width), (_GAP, _GAP + width + _APART), strict=False):
        for line, words in enumerate(_wrapped(title, font, space)):
            draw.text((at, _GAP + line * _LINE), words, _FAINT, font)
    for row, (label, pictures) in enumerate(rows):
        y = top + row * (_LINE + height + _GAP)
        draw.text((_GAP, y), _wrapped(label, font, across)[0], _INK, font)
        for column, picture in enumerate(pictures):
            x = _GAP + column * (width + _GAP) + (_APART - _GAP if column else 0)
            cell = Image.fromarray(picture).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (x, y + _LINE))
    return np.asarray(sheet)


def _columns(left: str, right: str, rows: list[tuple[str, list[npt.NDArray[np.uint8]]]], width: int) -> Any:
    views = len(rows[0][1]) - 1
    titles = [(left, width + _APART - _GAP)]
    return titles + ([(right, views * (width + _GAP))] if views else [])


def _wrapped(text: str, font: Any, space: int) -> list[str]:
    """Break text into lines that fit, at least one."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > space:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
