"""Class names in every script are drawn, whatever fonts the machine has."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from imagetune.reports.fonts import draw_text, measure_text
from imagetune.reports.style import drawing_style, save_png

NAMES = ("cat", "猫", "ねこ", "고양이", "😀", "große 猫")


def draw(text: str) -> np.ndarray:
    image = Image.new("L", (120, 24), 255)
    draw_text(ImageDraw.Draw(image), (2, 2), text, 0, 16)
    return np.asarray(image)


@pytest.mark.parametrize("name", NAMES)
def test_a_plot_has_a_glyph_for_every_letter(name: str, tmp_path) -> None:
    with drawing_style(), warnings.catch_warnings():
        warnings.filterwarnings("error", message="Glyph .* missing")
        warnings.filterwarnings("error", message="findfont")
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().set_title(name)
        save_png(figure, tmp_path / "plot.png")


@pytest.mark.parametrize("name", NAMES)
def test_a_contact_sheet_draws_no_boxes(name: str) -> None:
    # A letter that no font has gets the box of the first font.
    assert not np.array_equal(draw(name), draw("\U000f0000" * len(name)))
    assert draw(name).min() < 128
    assert 0 < measure_text(name, 16) < 120


def test_letters_of_several_fonts_stand_on_one_line() -> None:
    latin, both = draw("cat "), draw("cat 猫")
    width = round(measure_text("cat ", 16))
    assert np.array_equal(latin[:, :width], both[:, :width])
    assert (both[:, width + 2 :] < 128).any()
