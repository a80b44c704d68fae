"""The file formats that images are read in, HEIC among them where a package for it is installed."""

from __future__ import annotations

import io
from importlib import import_module
from importlib.metadata import version

from PIL import Image

from imagetune.data.loading.structure import find_tiff_excess

# Nothing else that Pillow knows: EPS starts Ghostscript, and ICO and ICNS hold images whose size no header tells.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF")
# The decoder alone; pillow-heif, which may be there already, also writes HEIC, and its wheels are under the GPL.
_PACKAGES = ("pi_heif", "pillow_heif")
# One or two seconds of Python. A photo takes about thirty.
_MAX_READS = 1_000_000


class _CountedBytes(io.BytesIO):
    """A file in memory that ends with an error after very many reads.

    Pillow walks through chunks, segments, tags and frames, and decodes some rare formats, in Python: a file that
    consists of nothing else would take minutes.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes.

        Raises:
            OSError: It is the 1,000,001st read.
        """
        self._reads += 1
        if self._reads > _MAX_READS:
            raise OSError("it consists of too many small parts to be decoded in a few seconds")
        return super().read(size)


def open_image(data: bytes) -> Image.Image:
    """Return an image whose header has been read and whose pixels have not; no image starts another program.

    Args:
        data: The bytes of its file.

    Raises:
        UnidentifiedImageError: It is none of `FORMATS`.
        Exception: Its header is corrupted, or would take too much to be read; readers raise whatever they like.
    """
    if excess := find_tiff_excess(data):
        raise ValueError(excess)
    Image.init()
    # Pillow fails for the name of a format that it wasn't built with.
    return Image.open(_CountedBytes(data), formats=[name for name in FORMATS if name in Image.OPEN])


def register_heic_reader() -> str:
    """Return name and version of the package that Pillow now reads HEIC by; "" where none is installed."""
    for name in _PACKAGES:
        try:
            import_module(name).register_heif_opener()
        except ImportError:
            continue
        return f"{name} {version(name)}"
    return ""
