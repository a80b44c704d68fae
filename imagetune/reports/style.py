"""The matplotlib style of all plots (colours, fonts, axes), and plots as inline SVG for a page.

Blue and vermilion (Okabe and Ito's palette) can be distinguished with every kind of colour vision, and nothing is shown
by colour alone. In SVG the colours become CSS variables, so that the page decides about light and dark.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from imagetune.core.files import replace_atomically
from imagetune.reports.fonts import list_font_families

INK, MUTED, GRID, BAND = "#1b2430", "#5d6b7c", "#d5dbe3", "#eef1f5"
TRAIN, VAL, RATE = "#0072b2", "#d55e00", "#007f5f"
RIGHT, WRONG, ON_DARK = "#0b5394", "#c24e00", "#fefefe"
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    BAND: "band",
    TRAIN: "train",
    VAL: "val",
    RATE: "rate",
    RIGHT: "right",
    WRONG: "wrong",
}
_PNG_DOTS_PER_INCH = 150
_STYLE = {
    # Texts stay texts instead of outlines, so that the browser's fonts draw them.
    "svg.fonttype": "none",
    # Without a salt the ids are random, and the same figure would give other bytes.
    "svg.hashsalt": "imagetune",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "lines.linewidth": 1.8,
}


@dataclass(frozen=True)
class Drawing:
    """A plot as an inline SVG element for a page.

    Attributes:
        title: What the plot shows.
        svg: The element as markup, without prolog, its ids prefixed so that several plots fit on one page.
        width: Natural width in CSS pixels.
    """

    title: str
    svg: Markup
    width: int


@contextmanager
def drawing_style() -> Iterator[None]:
    """Set matplotlib's style to that of our plots inside the block, and restore the settings afterwards."""
    with mpl.rc_context(), warnings.catch_warnings():
        # Nothing of the user's matplotlibrc: texts set by LaTeX, say, need programs that few machines have.
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE | {"font.family": list_font_families()})
        # A class name in a script that no font has is shown as boxes in PNG; in SVG the browser's fonts serve.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def save_inline_drawing(figure: Figure, title: str) -> Drawing:
    """Return a figure as SVG for a page, to be called inside `drawing_style`; the same figure gives the same bytes."""
    file = io.StringIO()
    _settle_layout(figure)
    # Transparent, so that the page's background shows, light or dark.
    figure.savefig(
        file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    prefix = re.sub(r"\W+", "-", title.lower()).strip("-")
    # The markup is our own, and matplotlib escapes the texts in it.
    svg = Markup(_inline(file.getvalue(), prefix, title))  # noqa: S704
    # SVG counts 96 pixels to the inch, as CSS does.
    return Drawing(title, svg, round(figure.get_figwidth() * 96))


def save_png(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG, to be called inside `drawing_style`; the same figure gives the same bytes.

    Raises:
        ResourceError: The disk is full.
    """
    _settle_layout(figure)
    with replace_atomically(path) as temporary:
        # White, as there is no page behind a PNG. Without matplotlib's version the bytes are reproducible.
        figure.savefig(temporary, format="png", dpi=_PNG_DOTS_PER_INCH, facecolor="white", metadata={"Software": None})


def _settle_layout(figure: Figure) -> None:
    """Place the axes of a figure so that their labels fit.

    Where a layout engine is left for it to do, `savefig` draws everything twice, which takes half as long again.
    """
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)


def _inline(svg: str, prefix: str, title: str) -> str:
    """Return matplotlib's SVG without prolog, addresses and metadata, its ids made the page's own."""
    body = svg[svg.index("<svg ") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', body)
    opening = f'<svg {view[0] if view else ""} role="img" aria-label="{escape(title)}">'
    body = opening + body[body.index(">") + 1 :]
    # Equal ids of two plots on a page would make one use the shapes of the other.
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", body)
    for colour, name in _VARIABLES.items():
        body = body.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", body)
