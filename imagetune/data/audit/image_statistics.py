"""Image statistics: what is known of one image file without its label."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Appearance:
    """Appearance of an image: colour, brightness, contrast, entropy, sharpness; levels are from 0 to 1.

    It is measured on a copy with 128 pixels on its longer side, so that images of any size can be compared.

    Attributes:
        red: Mean of the red channel.
        green: Mean of the green channel.
        blue: Mean of the blue channel.
        brightness: Mean of the grey levels.
        contrast: Standard deviation of the grey levels.
        darkest: The 0.5th percentile of the grey levels.
        brightest: The 99.5th percentile of the grey levels.
        entropy: Shannon entropy of the histogram of 256 grey levels, in bits, 0 to 8.
        sharpness: Strength of the sharpest edges (see `appearance.measure_appearance`) as a share of the range of grey
            levels: about 1 for sharp images of any kind, below 0.25 for blurred ones.
        ratio: Aspect ratio, width to height after EXIF orientation; as exact as 128 pixels allow.
    """

    red: float
    green: float
    blue: float
    brightness: float
    contrast: float
    darkest: float
    brightest: float
    entropy: float
    sharpness: float
    ratio: float


@dataclass(frozen=True, slots=True)
class ImageStatistics:
    """Statistics of one image file.

    Attributes:
        path: Path of the file.
        sha256: SHA-256 of the file's bytes, hexadecimal; "" when it can't be read.
        size_bytes: Size of the file.
        width: Columns as stored, before EXIF orientation; 0 when the header can't be read.
        height: Rows as stored, likewise.
        perceptual_hash: 64 bits; None for plain images, for unusable ones, and where it wasn't asked for.
        error: Why the image can't be used, or None.
        notes: ``(code, text)`` pairs of findings that don't prevent its use.
        kind: File type by content, in Pillow's spelling (``JPEG``, ``PNG``); "" when the header can't be read.
        camera: Maker and model from the EXIF data, "" without them.
        appearance: None for an image that can't be used.
        bit_depth: The bits that the values of an image with more than 8 bits a channel need; 0 for other images.
    """

    path: str
    sha256: str
    size_bytes: int
    width: int
    height: int
    perceptual_hash: int | None
    error: str | None
    notes: tuple[tuple[str, str], ...] = ()
    kind: str = ""
    camera: str = ""
    appearance: Appearance | None = None
    bit_depth: int = 0

    @property
    def comparable(self) -> bool:
        """Whether size and appearance are known, so that the image can be compared with others."""
        return self.appearance is not None and self.width > 0 and self.height > 0


@dataclass(frozen=True, slots=True)
class Inspection:
    """Result of inspecting one image file.

    Attributes:
        statistics: The statistics of the image.
        thumbnail: The descriptors that near-duplicates are compared by; see `perceptual.compute_perceptual_hash`.
    """

    statistics: ImageStatistics
    thumbnail: bytes
