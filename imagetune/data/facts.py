"""What one look at a picture file tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What one look at a file told.

    Attributes:
        path: The file.
        sha256: Of the file's bytes, hexadecimal; "" when it can't be read.
        size_bytes: Size of the file.
        width: Columns as stored, before EXIF turns it; 0 when the header can't be read.
        height: Rows as stored.
        perceptual_hash: 64 bits, None for plain and for bad pictures.
        error: Why it can't be used, or None.
        notes: ``(code, text)`` pairs of what is odd about it.
    """

    path: str
    sha256: str
    size_bytes: int
    width: int
    height: int
    perceptual_hash: int | None
    error: str | None
    notes: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Inspection:
    """The facts, and the look that near-duplicates are compared by (see `perceptual.look_of`)."""

    facts: PictureFacts
    thumbnail: bytes
    ratio: float
