"""Images unlike the others of their set: blank, dark, washed out, blurred, odd in size or shape; placeholders.

An image is only told when it is odd by itself *and* unlike its set: night photographs are dark, X-rays have no colour,
and in a set of them nothing of that is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from imagetune.core.text import format_count
from imagetune.data.duplicates.perceptual import SIDE
from imagetune.data.findings import CODES, Finding

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.data.audit.image_statistics import Appearance, ImageFacts, Inspection

    _Values = npt.NDArray[np.float64]

# The limits were set on the 420 shipped drawings and on 200 crops of photographs: none of those is beyond one that
# looks sound. By themselves:
MIN_CONTRAST = 0.012
MIN_ENTROPY = 0.15
DARK = 0.25
BRIGHT = 0.85
SOFT = 0.25
LONG = 3.0
# Pixels against the median, either way: a quarter of each side, or four times.
SIZES = 16.0
# And beside their set: parts of its median, and robust standard deviations, 1.4826 times the median deviation
# (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993).
_HALF = 0.5
_SOFTER = 0.35
_DEVIATIONS = 3.5
_MIN_DEVIATION = 0.1
# In fewer images than this there is no usual one.
FEWEST = 8

# A placeholder: its grey thumbnails agree but for what another size of the image does to them, it tells little, and
# its names have nothing in common.
_SAME_LEVELS = 16.0
_SAME_CORRELATION = 0.94
_PLAIN_ENTROPY = 3.5
_SAME_NAME = 0.5
_COPIES_WITHOUT_NAMES = 3

_WORDS = {
    "blank-image": (
        "{count} with nothing on it",
        "a model learns to guess from the empty image",
        "look at it, and remove it if something went wrong when it was taken or copied",
    ),
    "too-dark": ("{count} nearly black", "little can be seen on it", "look at it, and expose it again or remove it"),
    "too-bright": ("{count} washed out", "little can be seen on it", "look at it, and expose it again or remove it"),
    "blurred": (
        "{count} blurred",
        "not one sharp edge, even at 128 pixels",
        "look at it, and take it again or remove it",
    ),
    "odd-size": (
        "{count} far smaller or larger than the others",
        "a small one is enlarged for the model, and looks soft beside the others",
        "look whether it is an icon or a preview",
    ),
    "odd-aspect": (
        "{count} far longer or narrower than the others",
        "much of the model's input is margin, or much of the image is cut off",
        "look at it, and cut it to what it shows",
    ),
}


def odd_images(facts: Iterable[ImageFacts]) -> Iterator[Finding]:
    """Yield what is odd about single images; a blank, dark or bright one is not called blurred as well.

    Args:
        facts: Of every image; bad ones are passed over, and one that is there twice counts once.
    """
    good = list({fact.path: fact for fact in facts if fact.comparable}.values())
    looks = [fact.appearance for fact in good if fact.appearance is not None]
    found = dict(_odd_looks(looks))
    found.update(_odd_shapes(good))
    for code, (title, explanation, hint) in _WORDS.items():
        if reasons := {good[at].path: words for at, words in sorted(found.get(code, {}).items())}:
            words = title.format(count=format_count(len(reasons), "image"))
            yield Finding(code, CODES[code].severity, words, explanation, tuple(reasons), hint, reasons=reasons)


def placeholders(inspected: Sequence[Inspection], families: Iterable[Sequence[int]]) -> Iterator[Finding]:
    """Yield the families that look like one "no image here" drawing under unrelated names.

    Such a family looks the same, has few tones, and either its names have nothing in common or,
    where the names are but numbers, there are three of it.

    Args:
        inspected: Every image.
        families: Positions of what is the same image or nearly so.
    """
    groups = [tuple(inspected[at].facts.path for at in family) for family in families if _stands_in(inspected, family)]
    if groups:
        paths = tuple(path for group in groups for path in group)
        title = f"{format_count(len(paths), 'image')} that may be {format_count(len(groups), 'placeholder')}"
        explanation = "one plain drawing under unrelated names: an image that could not be had, perhaps"
        hint = "look at it, and remove it if the real image is missing"
        yield Finding("placeholder", CODES["placeholder"].severity, title, explanation, paths, hint, tuple(groups))


def robust_limits(values: _Values) -> tuple[float, float]:
    """Return median minus and plus 3.5 robust standard deviations, each of which is at least 0.1."""
    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), _MIN_DEVIATION)
    return middle - _DEVIATIONS * spread, middle + _DEVIATIONS * spread


def _odd_looks(looks: Sequence[Appearance]) -> Iterator[tuple[str, dict[int, str]]]:
    blank = {at: _told_blank(look) for at, look in enumerate(looks) if _is_blank(look)}
    yield "blank-image", blank
    if len(looks) < FEWEST:
        return
    rest = [(at, look) for at, look in enumerate(looks) if at not in blank]
    usual = {
        name: float(np.median([getattr(look, name) for look in looks]))
        for name in ("darkest", "brightest", "sharpness")
    }
    dark = {
        at: f"its brightest parts reach {look.brightest:.0%} of white"
        for at, look in rest
        if look.brightest < min(DARK, _HALF * usual["brightest"])
    }
    bright = {
        at: f"its darkest parts go down to {look.darkest:.0%} of white"
        for at, look in rest
        if 1 - look.darkest < min(1 - BRIGHT, _HALF * (1 - usual["darkest"]))
    }
    yield "too-dark", dark
    yield "too-bright", bright
    soft = min(SOFT, _SOFTER * usual["sharpness"])
    yield (
        "blurred",
        {
            at: f"sharpness {look.sharpness:.2f}, usual {usual['sharpness']:.2f}"
            for at, look in rest
            if look.sharpness < soft and at not in dark and at not in bright
        },
    )


def _is_blank(look: Appearance) -> bool:
    return look.contrast < MIN_CONTRAST or look.entropy < MIN_ENTROPY


def _told_blank(look: Appearance) -> str:
    return f"contrast {look.contrast:.1%}, {look.entropy:.2f} bits a pixel"


def _odd_shapes(good: Sequence[ImageFacts]) -> Iterator[tuple[str, dict[int, str]]]:
    if len(good) < FEWEST:
        return
    pixels = np.log([fact.width * fact.height for fact in good])
    low, high = robust_limits(pixels)
    far = np.abs(pixels - np.median(pixels)) > np.log(SIZES)
    beyond = far & ((pixels < low) | (pixels > high))
    yield "odd-size", {at: f"{good[at].width} x {good[at].height} pixels" for at in np.flatnonzero(beyond).tolist()}
    longer = np.abs(np.log([fact.width / fact.height for fact in good]))
    beyond = (longer > np.log(LONG)) & (longer > robust_limits(longer)[1])
    yield "odd-aspect", {at: f"{good[at].width} x {good[at].height} pixels" for at in np.flatnonzero(beyond).tolist()}


def _stands_in(inspected: Sequence[Inspection], family: Sequence[int]) -> bool:
    one = inspected[family[0]]
    look = one.facts.appearance
    if len(family) < 2 or look is None or look.entropy > _PLAIN_ENTROPY:
        return False
    if not all(_same_look(one, inspected[at]) for at in family[1:]):
        return False
    names = [re.sub(r"[\W\d_]+", "", Path(inspected[at].facts.path).stem.casefold()) for at in family]
    if not any(names):
        return len(family) >= _COPIES_WITHOUT_NAMES
    # All pairs of a large family would take long; its first members tell as much.
    pairs = combinations(names[:20], 2)
    return all(SequenceMatcher(None, first, second).ratio() < _SAME_NAME for first, second in pairs)


def _same_look(one: Inspection, other: Inspection) -> bool:
    if one.facts.sha256 == other.facts.sha256:
        return True
    if not one.thumbnail or not other.thumbnail:
        return False
    first, second = (np.frombuffer(look.thumbnail, np.uint8, SIDE * SIDE).astype(np.int16) for look in (one, other))
    if float(np.abs(first - second).mean()) > _SAME_LEVELS:
        return False
    return float(np.corrcoef(first, second)[0, 1]) >= _SAME_CORRELATION
