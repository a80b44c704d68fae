"""Image files: told by their suffix, and by their first bytes where they have none."""

from __future__ import annotations

from pathlib import Path

_COMMON_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".tif", ".tiff")
_RARE_SUFFIXES = (".avif", ".dib", ".jp2", ".pbm", ".pgm", ".pnm", ".ppm")
# Without the extra that reads them they are images all the same, so that each is named with the reason.
HEIC_SUFFIXES = (".heic", ".heif", ".hif")
IMAGE_SUFFIXES = frozenset((*_COMMON_SUFFIXES, *_RARE_SUFFIXES, *HEIC_SUFFIXES))

_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")
# ISO base media files name their kind in bytes 8 to 12: HEIC and AVIF photos have these.
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
_AVIF_BRANDS = (b"avif", b"avis")
_START_BYTES = 16
# What is no image here but often called like one, by its first bytes.
_OTHERS = {
    b"\0\0\1\0": "an ICO icon",
    b"icns": "an ICNS icon",
    b"8BPS": "a Photoshop file",
    b"%!PS": "a PostScript file",
    b"%PDF": "a PDF",
    b"<svg": "an SVG drawing",
    b"\xff\x0a": "a JPEG XL image",
    b"\0\0\0\x0cJXL ": "a JPEG XL image",
    b"PK\3\4": "a ZIP archive",
}
_PAGES = (b"<!doctype html", b"<html")


def is_image(path: str) -> bool:
    """Return whether a path has the suffix of an image file."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_image_file(path: str) -> bool:
    """Return whether a file is an image by its suffix or, where it has none, by its first bytes."""
    suffix = Path(path).suffix
    if suffix:
        return suffix.lower() in IMAGE_SUFFIXES
    try:
        # A pipe would be waited for.
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return has_image_start(file.read(_START_BYTES))
    except OSError:
        return False


def has_image_start(data: bytes) -> bool:
    """Return whether bytes begin as an image file does."""
    webp = data[:4] == b"RIFF" and data[8:12] == b"WEBP"
    return webp or data.startswith(_STARTS) or is_heic(data) or _has_brand(data, _AVIF_BRANDS)


def is_heic(data: bytes) -> bool:
    """Return whether bytes begin as a HEIC photo does."""
    return _has_brand(data, _HEIC_BRANDS) and b"avif" not in data[: _START_BYTES + 16]


def name_other_file(data: bytes) -> str:
    """Return what bytes are that are no image which can be read, as far as their beginning tells."""
    text = data[:512].lstrip().lower()
    if text.startswith(_PAGES):
        return "an HTML page"
    # An SVG may begin with an XML declaration.
    start = b"<svg" if text.startswith((b"<?xml", b"<svg")) and b"<svg" in text else data
    kind = next((kind for mark, kind in _OTHERS.items() if start.startswith(mark)), "")
    return "not an image that can be read" + (f": it is {kind}; convert it to PNG or JPEG" if kind else "")


def _has_brand(data: bytes, brands: tuple[bytes, ...]) -> bool:
    return data[4:8] == b"ftyp" and data[8:12] in brands
