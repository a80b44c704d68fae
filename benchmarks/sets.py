"""Generated sets of images for the benchmarks, which resemble photographs and differ from class to class."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from imagetune.data.sources.records import Record

QUALITY = 90
NOISE = 6.0
_TILE = 1024


def write_jpegs(
    folder: Path, *, classes: int, count: int, size: tuple[int, int] = (480, 640), seed: int = 0
) -> list[Record]:
    """Write JPEGs as a camera's would be, about 80 kB each at 640 x 480, into class folders ``class00``, ``class01``.

    A class has its own colour and its own stripes under what is random; a linear probe learns it, though not at once.

    Args:
        folder: Where the class folders go; made if need be. Files that are there already are written again.
        classes: Number of classes, which take turns.
        count: Number of images.
        size: Height and width in pixels.
        seed: The same seed writes the same files.

    Returns:
        A record an image, in the order of writing.
    """
    random = np.random.default_rng(seed)
    noise = random.normal(0, NOISE, (_TILE, _TILE, 3)).astype(np.int16)
    records = []
    for number in range(count):
        label = number % classes
        path = folder / f"class{label:02}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draw_image(random, label / classes, size, noise)
        cv2.imwrite(str(path), pixels[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
        records.append(Record(str(path), path.parent.name))
    return records


def draw_image(
    random: np.random.Generator, kind: float, size: tuple[int, int], noise: NDArray[np.int16]
) -> NDArray[np.uint8]:
    """Return an image of random soft shapes.

    Args:
        random: Where its shapes and its noise come from.
        kind: Its class as a number from 0 to 1, which sets its hue and the angle of its stripes.
        size: Height and width in pixels.
        noise: ``(n, n, 3)`` int16 sensor noise, laid side by side from a random place on.

    Returns:
        ``(height, width, 3)`` uint8 RGB.
    """
    rows, columns = np.mgrid[0:12, 0:16]
    hue = 128 + 60 * np.cos(2 * np.pi * (kind + np.array([0, 1 / 3, 2 / 3])))
    angle, phase = np.pi * kind, random.uniform(0, 2 * np.pi)
    stripes = 40 * np.sin((rows * np.sin(angle) + columns * np.cos(angle)) * 1.5 + phase)
    coarse = hue + stripes[:, :, None] + random.uniform(-90, 90, (12, 16, 3))
    smooth = cv2.resize(coarse.astype(np.float32), size[::-1], interpolation=cv2.INTER_CUBIC).astype(np.int16)
    start = random.integers(0, len(noise), 2)
    for axis, length in enumerate(size):
        noise = np.take(noise, (start[axis] + np.arange(length)) % noise.shape[axis], axis=axis)
    pixels: NDArray[np.uint8] = np.clip(smooth + noise, 0, 255).astype(np.uint8)
    return pixels
