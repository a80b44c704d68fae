"""A contact sheet: images as the model gets them, before and after augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from imagetune.data.loading.preview import PreviewRow
from imagetune.reports.fonts import draw_text, measure_text

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.recipe.sections.data import ImageSettings

_GAP = 6
_APART = 24
_TEXT = 14
_LINE = 18
_MIN_CELL = 96
_PAPER = (238, 240, 243)
_INK = (32, 36, 42)
_FAINT = (110, 116, 124)


def draw_contact_sheet(
    rows: Sequence[PreviewRow], *, settings: ImageSettings, augmentation: str | Sequence[Mapping[str, Any]]
) -> npt.NDArray[np.uint8]:
    """Draw a row for each image: on the left as the model gets it unaugmented, on the right its augmented copies.

    Args:
        rows: From `imagetune.data.loading.preview.load_preview`, at least one, all with as many copies.
        settings: Their size, and how they were resized.
        augmentation: As in the recipe.

    Returns:
        ``(h, w, 3)`` uint8 RGB.
    """
    name = augmentation if isinstance(augmentation, str) else ", ".join(next(iter(entry)) for entry in augmentation)
    left = f"as the model gets it ({settings.width} x {settings.height}, {settings.resize})"
    copies = len(rows[0].copies)
    # Small images are enlarged by whole steps, so that their pixels stay what they are.
    zoom = max(1, -(-_MIN_CELL // settings.width))
    width, height = settings.width * zoom, settings.height * zoom
    columns = _columns(left, f"augmented: {name}", copies, width)
    titles = max(1, *(len(_wrapped(title, space)) for title, space in columns))
    top = _GAP + titles * _LINE + _GAP
    across = _GAP + width + (_APART - _GAP if copies else 0) + copies * (width + _GAP) + _GAP
    sheet = Image.new("RGB", (across, top + len(rows) * (_LINE + height + _GAP)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    # Without copies there is no right side, and one title only.
    for (title, space), at in zip(columns, (_GAP, _GAP + width + _APART), strict=False):
        for line, words in enumerate(_wrapped(title, space)):
            draw_text(draw, (at, _GAP + line * _LINE), words, _FAINT, _TEXT)
    for place, row in enumerate(rows):
        y = top + place * (_LINE + height + _GAP)
        # Rows have room for one line, so that a long label ends where the sheet does.
        draw_text(draw, (_GAP, y), _wrapped(row.label, across)[0], _INK, _TEXT)
        for column, image in enumerate((row.image, *row.copies)):
            x = _GAP + column * (width + _GAP) + (_APART - _GAP if column else 0)
            cell = Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(cell, (x, y + _LINE))
    return np.asarray(sheet)


def _columns(left: str, right: str, copies: int, width: int) -> list[tuple[str, int]]:
    """Return the titles of both sides with the room that each has, in pixels."""
    titles = [(left, width + _APART - _GAP)]
    return titles + ([(right, copies * (width + _GAP))] if copies else [])


def _wrapped(text: str, space: int) -> list[str]:
    """Break text into lines that fit, at least one."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and measure_text(longer, _TEXT) > space:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
