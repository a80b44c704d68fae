"""One look for all images of a run, and SVG that fits into a page.

Blue and vermilion (Okabe and Ito's palette) are told apart with every kind of colour vision, and no difference is told
by colour alone. In SVG the colours become CSS variables, so that the page decides how they look at night.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.figure import Figure

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
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "imagetune",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
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
    """An SVG to be put into a page.

    Attributes:
        title: What it shows.
        svg: The element, without prolog, ids prefixed so that several fit on one page.
        width: Natural width in CSS pixels.
    """

    title: str
    svg: str
    width: int


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draw and save in our style inside the block; matplotlib's own settings are as before afterwards."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # A class name in a script that the font lacks is shown as boxes in PNG; in SVG the browser's fonts serve.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def inline_drawing(figure: Figure, title: str) -> Drawing:
    """Return a figure as SVG for a page, to be called inside `drawing_style`; the same figure gives the same bytes."""
    file = io.StringIO()
    figure.savefig(
        file, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
    )
    prefix = re.sub(r"\W+", "-", title.lower()).strip("-")
    return Drawing(title, _inline(file.getvalue(), prefix, title), round(figure.get_figwidth() * 96))


def _inline(svg: str, prefix: str, title: str) -> str:
    """Return matplotlib's SVG without prolog, addresses and metadata, its ids made the page's own."""
    body = svg[svg.index("<svg ") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    view = re.search(r'viewBox="[^"]*"', body)
    opening = f'<svg {view[0] if view else ""} role="img" aria-label="{title}">'
    body = opening + body[body.index(">") + 1 :]
    body = re.sub(r'\bid="', f'id="{prefix}-', body)
    body = re.sub(r'(href="|url\()#', rf"\1#{prefix}-", body)
    for colour, name in _VARIABLES.items():
        body = body.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", body)
