"""From the images of a package to a folder of images with their table; what all sets share."""

from __future__ import annotations

import csv
import hashlib
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from imagetune.core.files import replace_atomically

# Enough for 288 pixels; larger files only take longer to decode.
LONGEST_SIDE = 320
SHORTEST_SIDE = 48
TABLE = "images.csv"
Half = Literal["choose", "judge"]


@dataclass(frozen=True)
class SourceImage:
    """An image of a package, not yet read.

    Attributes:
        name: Unique within the set.
        label: Its class.
        read: Returns its pixels.
        group: Images of one group must stay in one split; the name where empty.
    """

    name: str
    label: str
    read: Callable[[], Image.Image]
    group: str = ""


@dataclass(frozen=True)
class ImageSet:
    """An image set.

    Attributes:
        name: Short name, unique.
        kind: Photographs, drawings, icons, textures...
        half: ``choose`` for choosing defaults, ``judge`` for judging them.
        packages: Debian packages that carry it.
        licence: Of the images, as the package says.
        task: What the label is.
        collect: Returns the images, given a function from a package's name to its folder.
        images: Number of images, as built.
        classes: Number of classes.
        least: Images of a class that has fewest allowed; smaller classes are left out.
        most: Images of a class at most, the others left out by a hash of their names; 0 for all.
        without: Classes whose images are near-duplicates of each other, so that they can't be split.
    """

    name: str
    kind: str
    half: Half
    packages: Sequence[str]
    licence: str
    task: str
    collect: Callable[[Callable[[str], Path]], Iterable[SourceImage]]
    images: int
    classes: int
    least: int = 8
    most: int = 0
    without: Sequence[str] = ()


def read_file_image(path: Path, label: str, group: str = "") -> SourceImage:
    """Return the image in a file."""
    return SourceImage(path.stem, label, lambda: Image.open(path), group)


def build_set(images: ImageSet, find: Callable[[str], Path], folder: Path) -> Path:
    """Write the images of a set and return its table, which has path, label and group; nothing where it is there.

    Transparency is flattened on white, and large images are made smaller, so that all programs read the same pixels.

    Raises:
        SetMissingError: A package can't be had.
    """
    table = folder / TABLE
    if table.exists():
        return table
    shutil.rmtree(folder, ignore_errors=True)
    found = choose(list(images.collect(find)), images)
    rows = []
    for index, image in enumerate(found):
        pixels = flatten(image.read)
        if pixels is None:
            continue
        path = folder / "images" / image.label / f"{index:05}-{_plain(image.name)}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels.save(path)
        rows.append((str(path.relative_to(folder)), image.label, image.group or image.name))
    with replace_atomically(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    return table


def choose(found: Sequence[SourceImage], images: ImageSet) -> list[SourceImage]:
    """Return the images of classes that are large enough, no class larger than wanted, in a stable order."""
    counts = Counter(image.label for image in found)
    taken: Counter[str] = Counter()
    chosen = []
    for image in sorted(found, key=lambda one: hashlib.sha256(one.name.encode()).digest()):
        if counts[image.label] < images.least or image.label in images.without:
            continue
        if images.most and taken[image.label] >= images.most:
            continue
        taken[image.label] += 1
        chosen.append(image)
    return sorted(chosen, key=lambda one: (one.label, one.name))


def flatten(read: Callable[[], Image.Image]) -> Image.Image | None:
    """Return an image as RGB on white with its longest side at most `LONGEST_SIDE`; None for a damaged or tiny one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with read() as image:
                image.thumbnail((4 * LONGEST_SIDE, 4 * LONGEST_SIDE), Image.Resampling.BOX)
                whole = image.convert("RGBA")
    except (OSError, ValueError, Image.DecompressionBombWarning, Image.DecompressionBombError):
        return None
    if min(whole.size) < SHORTEST_SIDE:
        return None
    white = Image.new("RGBA", whole.size, (255, 255, 255, 255))
    white.alpha_composite(whole)
    flat = white.convert("RGB")
    flat.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
    return flat


def _plain(name: str) -> str:
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name)[:60]
