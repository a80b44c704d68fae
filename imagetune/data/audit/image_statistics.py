"""What one look at an image file tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Appearance:
    """How an image looks at 128 pixels on its longer side; colours and grey levels from 0 to 1.

    Attributes:
        red: Mean of the channel.
        green: Mean of the channel.
        blue: Mean of the channel.
        brightness: Mean of the grey levels.
        contrast: Standard deviation of the grey levels.
        darkest: Grey level that one pixel in 200 lies below.
        brightest: Grey level that one pixel in 200 lies above.
        entropy: Of the histogram of 256 grey levels, in bits, 0 to 8.
        sharpness: Strength of the sharpest edges (see `appearance.appearance_of`) as a share of the range of grey
            levels: about 1 for sharp images of any kind, below 0.25 for blurred ones.
        ratio: Width to height as it is seen, which EXIF may turn; to a pixel of the 128.
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
class ImageFacts:
    """What one look at a file told.

    Attributes:
        path: The file.
        sha256: Of the file's bytes, hexadecimal; "" when it can't be read.
        size_bytes: Size of the file.
        width: Columns as stored, before EXIF turns it; 0 when the header can't be read.
        height: Rows as stored.
        perceptual_hash: 64 bits, None for plain and for bad images.
        error: Why it can't be used, or None.
        notes: ``(code, text)`` pairs of what is odd about it.
        kind: File type by content, in Pillow's spelling (``JPEG``, ``PNG``); "" when the header can't be read.
        camera: Maker and model from the EXIF data, "" without them.
        appearance: None for a bad image.
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

    @property
    def comparable(self) -> bool:
        """Whether size and looks are known, so that it can be compared with others."""
        return self.appearance is not None and self.width > 0 and self.height > 0


@dataclass(frozen=True, slots=True)
class Inspection:
    """The facts, and the look that near-duplicates are compared by (see `perceptual.look_of`)."""

    facts: ImageFacts
    thumbnail: bytes
