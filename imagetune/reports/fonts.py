"""Fonts of plots and contact sheets: matplotlib's own, the machine's for other scripts, and shipped ones after them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib import font_manager
from PIL import ImageFont

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

DEFAULT = "DejaVu Sans"
# Of the machine's fonts these cover Chinese, Japanese, Korean or emoji, and can be drawn in one colour.
_KNOWN = (
    *("Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Source Han Sans"),
    *("PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Microsoft YaHei", "Yu Gothic", "Malgun Gothic"),
    *("WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "Droid Sans Fallback", "Arial Unicode MS", "Noto Emoji"),
)
_SHIPPED = ("cjk.ttf", "hangul.otf", "emoji.otf")


@cache
def list_font_families() -> list[str]:
    """Return font families in the order in which matplotlib looks for a character in them."""
    installed = {font.name for font in font_manager.fontManager.ttflist}
    shipped = []
    for path in _list_shipped():
        font_manager.fontManager.addfont(path)
        # Titles are bold: matplotlib would warn on the screen that it takes the one weight there is.
        regular = font_manager.fontManager.ttflist[-1]
        font_manager.fontManager.ttflist.append(replace(regular, weight="bold"))
        shipped.append(regular.name)
    return [DEFAULT, *(name for name in _KNOWN if name in installed), *shipped]


def draw_text(draw: ImageDraw, place: tuple[float, float], text: str, ink: tuple[int, int, int], size: int) -> None:
    """Draw a line of text on an image, each character in the first font that has it."""
    x, y = place
    for font, run in _split_by_font(text, size):
        # By the baseline, as fonts differ in height.
        draw.text((x, y + size), run, ink, font, anchor="ls")
        x += font.getlength(run)


def measure_text(text: str, size: int) -> float:
    """Return the width of a line of text in pixels, as `draw_text` draws it."""
    return sum(font.getlength(run) for font, run in _split_by_font(text, size))


def _split_by_font(text: str, size: int) -> Iterator[tuple[ImageFont.FreeTypeFont, str]]:
    for path, letters in groupby(text, _find_font):
        yield _load_font(path, size), "".join(letters)


@cache
def _find_font(letter: str) -> str:
    paths = [font_manager.findfont(name) for name in list_font_families()]
    return next((path for path in paths if ord(letter) in font_manager.get_font(path).get_charmap()), paths[0])


@cache
def _load_font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def _list_shipped() -> list[Path]:
    return [Path(str(files("imagetune.reports") / "font_files" / name)) for name in _SHIPPED]
