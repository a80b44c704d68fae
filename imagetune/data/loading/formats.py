"""The file formats that images are read in, HEIC among them where a package for it is installed."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import BinaryIO

from PIL import Image

# Nothing else that Pillow knows: EPS starts Ghostscript, and ICO and ICNS hold images whose size no header tells.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
# The decoder alone; pillow-heif, which may be there already, also writes HEIC, and its wheels are under the GPL.
_PACKAGES = ("pi_heif", "pillow_heif")


def open_image(file: str | Path | BinaryIO) -> Image.Image:
    """Return an image whose header has been read and whose pixels have not; no image starts another program.

    Args:
        file: A path, or a file in binary mode at its beginning.

    Raises:
        UnidentifiedImageError: It is none of `FORMATS`.
        Exception: Its header is corrupted; readers raise whatever they like.
    """
    Image.init()
    # Pillow fails for the name of a format that it wasn't built with.
    return Image.open(file, formats=[name for name in FORMATS if name in Image.OPEN])


def register_heic_reader() -> str:
    """Return name and version of the package that Pillow now reads HEIC by; "" where none is installed."""
    for name in _PACKAGES:
        try:
            import_module(name).register_heif_opener()
        except ImportError:
            continue
        return f"{name} {version(name)}"
    return ""
