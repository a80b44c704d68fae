"""Images that are known to be sound, and faults of ten kinds planted among them."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Pixels = np.ndarray
Change = Callable[[Pixels, np.random.Generator], Pixels]
SIZES = ((240, 320), (320, 240), (256, 256))
CLASSES = ("ash", "birch", "cedar", "dogwood")


def scene(seed: int) -> Pixels:
    """A made-up photograph: clouds of 1/f noise, bright and dark shapes, grain."""
    rng = np.random.default_rng(seed)
    height, width = SIZES[seed % 3]
    light, tint = clouds(rng, height, width, 1.2), clouds(rng, height, width, 1.6)
    base = rng.integers(60, 200, 3) + light * rng.uniform(10, 35) + tint * rng.normal(0, 20, 3)
    image = np.clip(base, 0, 255).astype(np.uint8)
    for _ in range(rng.integers(2, 9)):
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        x, y = int(rng.integers(0, width)), int(rng.integers(0, height))
        if rng.random() < 0.5:
            axes = int(rng.integers(10, width // 3)), int(rng.integers(10, height // 3))
            cv2.ellipse(image, (x, y), axes, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        else:
            corners = [[x, y], *((np.array([x, y]) + rng.integers(-90, 90, 2)).tolist() for _ in range(3))]
            cv2.fillPoly(image, [np.array(corners, np.int32)], colour)
    grain = clouds(rng, height, width, 1.0) * 8 + rng.normal(0, 4, (height, width, 1))
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def clouds(rng: np.random.Generator, height: int, width: int, power: float) -> Pixels:
    """Noise whose spectrum falls with the frequency, as that of photographs does: (height, width, 1), standard."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(width), np.fft.fftfreq(height)))
    frequency[0, 0] = 1
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(height, width))) / frequency**power).real
    return ((noise - noise.mean()) / noise.std())[:, :, None]


def on_white(path: Path) -> Pixels:
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
    paper.alpha_composite(image)
    return np.asarray(paper.convert("RGB"))


def resized(image: Pixels, rng: np.random.Generator) -> Pixels:
    scale = rng.choice([0.5, 0.75, 1.6])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=how)


def recompressed(image: Pixels, rng: np.random.Generator) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(rng.integers(25, 70)))
    return np.asarray(Image.open(stream).convert("RGB"))


def flipped(image: Pixels, rng: np.random.Generator) -> Pixels:
    """One of the seven other orientations."""
    turn = int(rng.integers(1, 8))
    turned = np.rot90(image, turn % 4)
    return np.ascontiguousarray(turned[:, ::-1] if turn >= 4 else turned)


def cropped(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Without 5% of its height and of its width, anywhere."""
    height, width = image.shape[:2]
    rows, columns = round(0.95 * height), round(0.95 * width)
    top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    return image[top : top + rows, left : left + columns]


def watermarked(image: Pixels, rng: np.random.Generator) -> Pixels:
    """With half-transparent words across half of it, anywhere."""
    canvas = Image.fromarray(image).convert("RGBA")
    sheet = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
    size = max(8, canvas.width // 9)
    font, words = ImageFont.load_default(size=size), "© sample.org"
    draw = ImageDraw.Draw(sheet)
    place = (canvas.width - draw.textlength(words, font)) * rng.random(), (canvas.height - size) * rng.random()
    draw.text(place, words, (255, 255, 255, 140) if rng.random() < 0.5 else (40, 40, 40, 140), font)
    canvas.alpha_composite(sheet)
    return np.asarray(canvas.convert("RGB"))


NEAR: dict[str, Change] = {
    "resized": resized,
    "recompressed": recompressed,
    "flipped": flipped,
    "cropped": cropped,
    "watermarked": watermarked,
}
ODD: dict[str, Change] = {
    "blank": lambda image, rng: np.full_like(image, int(rng.integers(60, 250))),
    "tiny": lambda image, rng: cv2.resize(image, (14, 14), interpolation=cv2.INTER_AREA),
    "dark": lambda image, rng: image // 5,
    "blurred": lambda image, rng: cv2.GaussianBlur(image, (0, 0), 10),
}


@dataclass
class Planted:
    """What lies in a folder.

    Attributes:
        root: The folder of class folders.
        clean: The sound images.
        faults: By kind, the faulty images; with the original of each copy, or itself.
    """

    root: Path
    clean: list[Path] = field(default_factory=list)
    faults: dict[str, list[tuple[Path, Path]]] = field(default_factory=dict)

    def add(self, kind: str, name: str, original: Path, data: bytes, *, label: str | None = None) -> None:
        path = self.root / (label or original.parent.name) / name
        path.write_bytes(data)
        self.faults.setdefault(kind, []).append((path, original))


def plant(root: Path, clean: list[Pixels], *, each: int, near: int, seed: int = 0) -> Planted:
    """Write clean images as JPEG and PNG into class folders, and faults among them.

    Args:
        root: To be made.
        clean: Sound images, all different.
        each: How many faults of each kind but near-duplicates.
        near: How many near-duplicates of each of the five kinds.
        seed: Of what is drawn.
    """
    rng = np.random.default_rng(seed)
    found = Planted(root)
    for label in CLASSES:
        (root / label).mkdir(parents=True)
    for number, image in enumerate(clean):
        path = root / CLASSES[number % len(CLASSES)] / f"{number:05}.{'png' if number % 5 == 0 else 'jpg'}"
        Image.fromarray(image).save(path, quality=92)
        found.clean.append(path)
    originals = iter(rng.permutation(len(clean)).tolist())
    for kind, change in NEAR.items():
        for number in range(near):
            at = next(originals)
            found.add(kind, f"{kind}{number}.jpg", found.clean[at], encoded(change(clean[at], rng)))
    for number in range(each):
        plant_files(found, number, [found.clean[next(originals)] for _ in range(2)])
        for kind, change in ODD.items():
            image = change(scene(900_000 + 100 * number + len(kind)), rng)
            path = root / CLASSES[number % 4] / f"{kind}{number}.png"
            found.add(kind, path.name, path, encoded(image, "PNG"))
    return found


def plant_files(found: Planted, number: int, originals: list[Path]) -> None:
    """Add one fault of each kind that lies in the file or in its label."""
    first, second = originals
    here = found.root / CLASSES[number % 4]
    junk = [b"", b"<html><body>404</body></html>", b"\x89PNG\r\n\x1a\nnothing"][number % 3]
    found.add("unreadable", f"unreadable{number}.jpg", here / f"unreadable{number}.jpg", junk)
    whole = encoded(scene(800_000 + number))
    found.add("truncated", f"truncated{number}.jpg", here / f"truncated{number}.jpg", whole[: len(whole) * 2 // 3])
    other = encoded(scene(700_000 + number), "PNG")
    found.add("wrong suffix", f"wrong{number}.jpg", here / f"wrong{number}.jpg", other)
    found.add("exact copy", f"copy{number}{first.suffix}", first, first.read_bytes())
    label = CLASSES[(CLASSES.index(second.parent.name) + 1) % len(CLASSES)]
    found.add("two labels", f"twin{number}{second.suffix}", second, second.read_bytes(), label=label)


def encoded(image: Pixels, kind: str = "JPEG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, quality=88)
    return stream.getvalue()
