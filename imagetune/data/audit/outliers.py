"""Outlier images: blank, dark, overexposed, blurred, of unusual size or aspect ratio; and placeholder images.

An image is only reported when it is extreme by itself *and* an outlier of its data set: night photographs are dark and
X-rays have no colour, and in a data set of them neither is a fault.
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

    from imagetune.data.audit.image_statistics import Appearance, ImageStatistics, Inspection

    _Values = npt.NDArray[np.float64]

# Absolute limits, set on the 420 shipped drawings and 200 crops of photographs so that no sound image exceeds one.
MIN_CONTRAST = 0.012
MIN_ENTROPY = 0.15
DARK = 0.25
BRIGHT = 0.85
SOFT = 0.25
LONG = 3.0
# Pixels against the median, either way: a quarter of each side, or four times.
SIZES = 16.0
# Limits relative to the data set: shares of its median, and robust standard deviations, 1.4826 times the MAD
# (Iglewicz and Hoaglin, "How to Detect and Handle Outliers", 1993).
_HALF = 0.5
_SOFT_SHARE = 0.35
_DEVIATIONS = 3.5
_MIN_DEVIATION = 0.1
# The median of fewer images than this says little about what is normal.
MIN_IMAGES = 8

# A placeholder: its thumbnails agree up to the effects of resizing, its entropy is low, and its file names have nothing
# in common.
_SAME_LEVELS = 16.0
_SAME_CORRELATION = 0.94
_PLAIN_ENTROPY = 3.5
_SAME_NAME = 0.5
_COPIES_WITHOUT_NAMES = 3

_WORDS = {
    "blank-image": (
        "{count} without content",
        "a model can only learn to guess its label",
        "view it, and remove it if it was taken or copied wrongly",
    ),
    "too-dark": ("{count} nearly black", "hardly any content is visible", "view it, and replace or remove it"),
    "too-bright": ("{count} overexposed", "hardly any content is visible", "view it, and replace or remove it"),
    "blurred": (
        "{count} blurred",
        "no edge is sharp, even at 128 pixels",
        "view it, and replace or remove it",
    ),
    "odd-size": (
        "{count} far smaller or larger than the others",
        "small images are enlarged for the model and look softer than the others",
        "check whether it is an icon or a thumbnail",
    ),
    "odd-aspect": (
        "{count} with a far more extreme aspect ratio than the others",
        "much of the model's input is padding, or much of the image is cropped",
        "view it, and crop it to its content",
    ),
}


def find_outlier_images(statistics: Iterable[ImageStatistics]) -> Iterator[Finding]:
    """Yield findings about outliers of appearance, size and aspect ratio.

    A blank, dark or overexposed image is not reported as blurred as well, because it has no edges either way.

    Args:
        statistics: The statistics of every image; unusable ones are skipped, and duplicates of a path count once.
    """
    good = list({image.path: image for image in statistics if image.comparable}.values())
    appearances = [image.appearance for image in good if image.appearance is not None]
    found = dict(_find_unusual_appearances(appearances))
    found.update(_find_unusual_shapes(good))
    for code, (title, explanation, hint) in _WORDS.items():
        if reasons := {good[at].path: words for at, words in sorted(found.get(code, {}).items())}:
            words = title.format(count=format_count(len(reasons), "image"))
            yield Finding(code, CODES[code].severity, words, explanation, tuple(reasons), hint, reasons=reasons)


def find_placeholders(inspected: Sequence[Inspection], duplicate_groups: Iterable[Sequence[int]]) -> Iterator[Finding]:
    """Yield a finding about placeholder images: one plain "no image" drawing under unrelated file names.

    Its copies look the same and have low entropy; their names have nothing in common or, where they are only numbers,
    there are at least three copies.

    Args:
        inspected: The inspection of every image.
        duplicate_groups: The positions of the images of each near-duplicate group.
    """
    groups = [
        tuple(inspected[at].statistics.path for at in group)
        for group in duplicate_groups
        if _is_placeholder(inspected, group)
    ]
    if groups:
        paths = tuple(path for group in groups for path in group)
        title = f"{format_count(len(paths), 'image')} that may be {format_count(len(groups), 'placeholder')}"
        explanation = "one plain drawing under unrelated file names, perhaps shown in place of a missing image"
        hint = "view it, and remove its copies if the real images are missing"
        yield Finding("placeholder", CODES["placeholder"].severity, title, explanation, paths, hint, tuple(groups))


def compute_robust_limits(values: _Values) -> tuple[float, float]:
    """Return median minus and plus 3.5 robust standard deviations, each of which is at least 0.1."""
    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), _MIN_DEVIATION)
    return middle - _DEVIATIONS * spread, middle + _DEVIATIONS * spread


def _find_unusual_appearances(appearances: Sequence[Appearance]) -> Iterator[tuple[str, dict[int, str]]]:
    blank = {at: _describe_blank(appearance) for at, appearance in enumerate(appearances) if _is_blank(appearance)}
    yield "blank-image", blank
    if len(appearances) < MIN_IMAGES:
        return
    rest = [(at, appearance) for at, appearance in enumerate(appearances) if at not in blank]
    median = {
        name: float(np.median([getattr(appearance, name) for appearance in appearances]))
        for name in ("darkest", "brightest", "sharpness")
    }
    dark = {
        at: f"its brightest pixels reach {appearance.brightest:.0%} of white"
        for at, appearance in rest
        if appearance.brightest < min(DARK, _HALF * median["brightest"])
    }
    bright = {
        at: f"its darkest pixels are at {appearance.darkest:.0%} of white"
        for at, appearance in rest
        if 1 - appearance.darkest < min(1 - BRIGHT, _HALF * (1 - median["darkest"]))
    }
    yield "too-dark", dark
    yield "too-bright", bright
    soft = min(SOFT, _SOFT_SHARE * median["sharpness"])
    yield (
        "blurred",
        {
            at: f"sharpness {appearance.sharpness:.2f}, median {median['sharpness']:.2f}"
            for at, appearance in rest
            if appearance.sharpness < soft and at not in dark and at not in bright
        },
    )


def _is_blank(appearance: Appearance) -> bool:
    return appearance.contrast < MIN_CONTRAST or appearance.entropy < MIN_ENTROPY


def _describe_blank(appearance: Appearance) -> str:
    return f"contrast {appearance.contrast:.1%}, {appearance.entropy:.2f} bits a pixel"


def _find_unusual_shapes(good: Sequence[ImageStatistics]) -> Iterator[tuple[str, dict[int, str]]]:
    if len(good) < MIN_IMAGES:
        return
    pixels = np.log([image.width * image.height for image in good])
    low, high = compute_robust_limits(pixels)
    far = np.abs(pixels - np.median(pixels)) > np.log(SIZES)
    beyond = far & ((pixels < low) | (pixels > high))
    yield "odd-size", {at: f"{good[at].width} x {good[at].height} pixels" for at in np.flatnonzero(beyond).tolist()}
    longer = np.abs(np.log([image.width / image.height for image in good]))
    beyond = (longer > np.log(LONG)) & (longer > compute_robust_limits(longer)[1])
    yield "odd-aspect", {at: f"{good[at].width} x {good[at].height} pixels" for at in np.flatnonzero(beyond).tolist()}


def _is_placeholder(inspected: Sequence[Inspection], group: Sequence[int]) -> bool:
    one = inspected[group[0]]
    appearance = one.statistics.appearance
    if len(group) < 2 or appearance is None or appearance.entropy > _PLAIN_ENTROPY:
        return False
    if not all(_look_same(one, inspected[at]) for at in group[1:]):
        return False
    names = [re.sub(r"[\W\d_]+", "", Path(inspected[at].statistics.path).stem.casefold()) for at in group]
    if not any(names):
        return len(group) >= _COPIES_WITHOUT_NAMES
    # All pairs of a large group would take long, and twenty names show as much.
    pairs = combinations(names[:20], 2)
    return all(SequenceMatcher(None, first, second).ratio() < _SAME_NAME for first, second in pairs)


def _look_same(one: Inspection, other: Inspection) -> bool:
    if one.statistics.sha256 == other.statistics.sha256:
        return True
    if not one.thumbnail or not other.thumbnail:
        return False
    first, second = (
        np.frombuffer(appearance.thumbnail, np.uint8, SIDE * SIDE).astype(np.int16) for appearance in (one, other)
    )
    if float(np.abs(first - second).mean()) > _SAME_LEVELS:
        return False
    return float(np.corrcoef(first, second)[0, 1]) >= _SAME_CORRELATION
