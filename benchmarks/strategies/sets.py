"""The image sets: the shipped drawings, and two public sets that packages carry.

A seed draws its own images and splits from the larger sets. Images are written as PNG under the work folder; the
shipped drawings stay where they are and are split by imagetune itself, near-duplicate groups together.
"""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.packages import unpack_debian
from imagetune.core.files import replace_atomically

FASHION_PACKAGE = "dataset-fashion-mnist"
FASHION_FOLDER = Path("usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
PIXELS = 64
MIN_SHARE = 0.1
Pixels = NDArray[np.uint8]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Counts:
    """Images a class."""

    train: int
    val: int
    test: int


COUNTS = Counts(train=20, val=8, test=40)
LONG_TAIL_COUNTS = Counts(train=50, val=8, test=40)


def set_names() -> tuple[str, ...]:
    """Return the names of all sets."""
    return ("clipart", "digits", "fashion", "digits_long_tail")


def data_section(name: str, seed: int, work: Path) -> dict[str, Any]:
    """Return the ``data`` section of the set's recipes, writing its images first where they are missing.

    Raises:
        SetMissingError: A package that carries it can't be had.
    """
    shared = {"workers": 0, "augmentation": "light"}
    if name == "clipart":
        source = Path(str(resources.files("imagetune.shipped"))) / "clipart"
        split = {"val": 0.15, "test": 0.35, "method": "stratified"}
        return {**shared, "source": str(source), "image_size": PIXELS, "split": split}
    table = work / "sets" / f"{name}-{seed}" / "images.csv"
    if not table.exists():
        images, labels, names = _load_digits() if name.startswith("digits") else _load_fashion(work)
        long_tail = name.endswith("long_tail")
        drawn = _draw(labels, LONG_TAIL_COUNTS if long_tail else COUNTS, seed=seed, long_tail=long_tail)
        _write(images, labels, names, drawn, table)
    # Digits look alike to a perceptual hash: every class would be one near-duplicate group.
    audit = {"on_leak": "ignore", "near_duplicates": False}
    return {**shared, "source": str(table), "image_size": PIXELS, "audit": audit}


def _load_digits() -> tuple[Pixels, Labels, tuple[str, ...]]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return images, digits.target.astype(np.int64), tuple(str(digit) for digit in range(10))


def _load_fashion(work: Path) -> tuple[Pixels, Labels, tuple[str, ...]]:
    folder = Path("/") / FASHION_FOLDER
    if not folder.is_dir():
        folder = work / "packages" / FASHION_FOLDER
        if not folder.is_dir():
            unpack_debian(FASHION_PACKAGE, work / "packages")
    images = np.frombuffer(gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())[16:], np.uint8)
    labels = np.frombuffer(gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:], np.uint8)
    return images.reshape(-1, 28, 28), labels.astype(np.int64), FASHION_CLASSES


def _draw(labels: Labels, counts: Counts, *, seed: int, long_tail: bool) -> dict[str, Labels]:
    """Return the positions of each split's images, the same number of every class but for a long tail."""
    rng = np.random.default_rng([seed, 2026])
    classes = np.unique(labels)
    shares = MIN_SHARE ** (np.arange(len(classes)) / (len(classes) - 1)) if long_tail else np.ones(len(classes))
    rng.shuffle(shares)
    drawn: dict[str, list[Labels]] = {"train": [], "val": [], "test": []}
    for label, share in zip(classes, shares, strict=True):
        order = rng.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum([counts.test, counts.val, max(1, round(counts.train * share))])
        for split, part in zip(("test", "val", "train"), np.split(order, ends)[:3], strict=True):
            drawn[split].append(part)
    return {split: np.concatenate(parts) for split, parts in drawn.items()}


def _write(images: Pixels, labels: Labels, names: tuple[str, ...], drawn: dict[str, Labels], table: Path) -> None:
    """Write the drawn images, enlarged to `PIXELS`, and last the table that says what they are."""
    table.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for split, positions in drawn.items():
        for position in positions:
            path = table.parent / f"{position:05}.png"
            enlarged = cv2.resize(images[position], (PIXELS, PIXELS), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(path), enlarged)
            rows.append((path.name, names[labels[position]], split))
    with replace_atomically(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split"))
        writer.writerows(rows)
