"""Image decoding and resizing to RGB arrays, the same for training, evaluation, prediction and serving.

Pillow reads every header first, so that a decompression bomb is refused before it is decoded. simplejpeg decodes valid
8-bit JPEGs; OpenCV decodes other JPEGs, PNG and still WebP; Pillow the rest: CMYK, 16-bit, GIF, TIFF, BMP, AVIF and
animations. Pillow also gives the reason where the others fail.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from imagetune.data.loading.costs import compute_max_bytes, describe_excess
from imagetune.data.loading.deep_images import convert_levels, has_unmarked_band, is_deep, measure_depth, read_levels
from imagetune.data.loading.formats import open_image, register_heic_reader
from imagetune.data.loading.orientation import TRANSPOSED, read_orientation, undo_orientation
from imagetune.data.loading.png import find_png_corruption
from imagetune.data.loading.rows import composite, split_rows
from imagetune.data.sources.image_files import is_heic, name_other_file
from imagetune.errors import BadImageError, ImagetuneError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from imagetune.recipe.sections.data import ImageSettings

    Pixels = npt.NDArray[np.uint8]
    # Maps the upright rows and columns of an image to the scale at which it will be used.
    Scale = Callable[[int, int], float]

# Images are decoded in parallel by processes and threads; threads inside OpenCV would only compete with them.
cv2.setNumThreads(0)
# An undecodable image becomes a BadImageError; OpenCV's own log messages would break the progress bar.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# Each header is checked against max_pixels here; Pillow's fixed limit would warn below it or refuse above it.
Image.MAX_IMAGE_PIXELS = None

# The version of the package that reads HEIC photos, which is optional: its wheels bring libraries under the LGPL.
HEIC_VERSION = register_heic_reader()

_TOO_LARGE = "raise data.max_pixels if the image is valid"
_OPENCV_MODES = {
    "JPEG": ("L", "RGB"),
    "MPO": ("L", "RGB"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
}
# OpenCV's flags for reduced sizes contain that for BGR, which would contradict IMREAD_COLOR_RGB.
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2 & ~cv2.IMREAD_COLOR_BGR,
    4: cv2.IMREAD_REDUCED_COLOR_4 & ~cv2.IMREAD_COLOR_BGR,
    8: cv2.IMREAD_REDUCED_COLOR_8 & ~cv2.IMREAD_COLOR_BGR,
}
# Shrinking in float32 takes four bytes a value, so larger images are shrunk as bytes.
_MAX_FLOAT_PIXELS = 1 << 21


def load_image(path: str, settings: ImageSettings, *, max_pixels: int) -> Pixels:
    """Return one image file, decoded and resized to the model's input.

    Returns:
        ``(settings.height, settings.width, 3)`` uint8 RGB.

    Raises:
        BadImageError: The file doesn't exist or can't be decoded; ``where`` is its path.
    """
    return load_image_bytes(read_image_file(path, max_pixels=max_pixels), settings, where=path, max_pixels=max_pixels)


def load_image_bytes(data: bytes, settings: ImageSettings, *, where: str, max_pixels: int) -> Pixels:
    """Return an image that has come from elsewhere than a file, exactly as `load_image` returns that of a file.

    Args:
        data: The bytes of an image file.
        settings: Size, resize method and background of the input.
        where: Name for error messages.
        max_pixels: Images with more pixels than this are refused, from their header.

    Returns:
        ``(settings.height, settings.width, 3)`` uint8 RGB.

    Raises:
        BadImageError: As from `decode_image`.
    """
    scale = partial(_compute_frame_scale, settings)
    image = _decode(data, where, settings.background, max_pixels, scale, settings.bit_depth).pixels
    return resize_image(image, settings)


def read_image_file(path: str, *, max_pixels: int) -> bytes:
    """Return the bytes of an image file.

    Args:
        path: Its path.
        max_pixels: ``data.max_pixels``, which also bounds the size of a file.

    Raises:
        BadImageError: The file doesn't exist, is empty, too large or no regular file, or can't be read.
    """
    # Readers copy what they are given: chunks, tags, or all of it.
    most = compute_max_bytes(max_pixels) // 2
    try:
        # A pipe would be waited for, and /dev/zero never ends.
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  (a Path takes as long as the rest)
            raise BadImageError("is a folder, pipe or device, not a file", where=path)
        with open(path, "rb") as file:  # noqa: PTH123  (likewise)
            size = os.fstat(file.fileno()).st_size
            data = b"" if size > most else file.read(size)
    except FileNotFoundError as error:
        what = "is a symbolic link to a file that does not exist" if Path(path).is_symlink() else "no such file"
        raise BadImageError(what, where=path) from error
    except OSError as error:
        raise BadImageError(f"can't be read: {error.strerror}", where=path) from error
    # A zero byte, or half of a character that takes two.
    except ValueError as error:
        raise BadImageError("is no path that a file can have", where=path) from error
    if size > most:
        what = f"the file has {size / 1e6:,.0f} MB, more than the {most / 1e6:,.0f} MB allowed"
        raise BadImageError(what, where=path, hint=_TOO_LARGE)
    if not data:
        raise BadImageError("the file is empty", where=path)
    return data


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, and what of its file had to be interpreted.

    Attributes:
        pixels: ``(height, width, 3)`` uint8 RGB.
        bit_depth: The bits that the values of an image with more than 8 bits a channel need; 0 for other images.
        extra_band: Whether a fourth band that isn't transparency was left out.
    """

    pixels: Pixels
    bit_depth: int = 0
    extra_band: bool = False


def decode_image(
    data: bytes,
    *,
    where: str,
    background: tuple[int, int, int],
    max_pixels: int,
    at_least: tuple[int, int] | None = None,
    bit_depth: int | None = None,
) -> DecodedImage:
    """Return the first frame of an image file, with EXIF orientation applied and transparency on the background.

    Args:
        data: The bytes of the file.
        where: Path or name for error messages.
        background: RGB, 0 to 255.
        max_pixels: Images with more pixels than this are refused, from their header.
        at_least: Minimum height and width in pixels, upright, that the caller needs. A JPEG of at least twice that size
            is decoded at 1/2, 1/4 or 1/8 (libjpeg's scaled inverse DCT). The eighths in between were measured to be
            slower than the full size.
        bit_depth: The bits that are used of images with more than 8 bits a channel; by default what this image needs.

    Raises:
        BadImageError: The image is truncated, corrupted or not an image, or decoding it takes too much (`costs`).
    """
    scale = None if at_least is None else partial(_compute_cover_scale, at_least)
    return _decode(data, where, background, max_pixels, scale, bit_depth)


def resize_image(image: Pixels, settings: ImageSettings) -> Pixels:
    """Return an image resized to the model's input.

    ``pad`` scales the whole image into the frame and centres it on the background, ``crop`` takes the largest centred
    crop with the frame's aspect ratio, ``squash`` stretches. Shrinking is by area averaging, enlarging is bilinear.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        settings: Size, resize method and background of the input.

    Returns:
        ``(settings.height, settings.width, 3)`` uint8 RGB.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (settings.height, settings.width):
        return image
    if settings.resize == "squash":
        return _resize(image, settings.height, settings.width)
    scale = _compute_frame_scale(settings, rows, columns)
    if settings.resize == "crop":
        keep_rows = min(rows, max(1, round(settings.height / scale)))
        keep_columns = min(columns, max(1, round(settings.width / scale)))
        top, left = (rows - keep_rows) // 2, (columns - keep_columns) // 2
        return _resize(image[top : top + keep_rows, left : left + keep_columns], settings.height, settings.width)
    # Rounding may exceed the frame by a pixel, and would make a side of a very long image vanish.
    height = min(settings.height, max(1, round(rows * scale)))
    width = min(settings.width, max(1, round(columns * scale)))
    top, left = (settings.height - height) // 2, (settings.width - width) // 2
    bottom, right = settings.height - height - top, settings.width - width - left
    framed: Pixels = cv2.copyMakeBorder(
        _resize(image, height, width), top, bottom, left, right, cv2.BORDER_CONSTANT, value=settings.background
    )
    return framed


def _decode(
    data: bytes,
    where: str,
    background: tuple[int, int, int],
    max_pixels: int,
    scale: Scale | None,
    bit_depth: int | None,
) -> DecodedImage:
    """Return an image as `decode_image` does, decoded at a reduced size no smaller than ``scale`` asks for."""
    header = _open_header(data, where)
    # Whatever goes wrong in here makes this one image unreadable, and no other.
    with header, _convert_decode_errors(header, where):
        reduce = 1 if scale is None else _choose_reduction(header, scale)
        if excess := describe_excess(header, data, max_pixels, reduce=reduce):
            raise BadImageError(excess, where=where, hint=_TOO_LARGE)
        if corruption := find_png_corruption(data):
            raise BadImageError(corruption, where=where)
        if is_deep(header, data) and (deep := _decode_deep(data, header, where, background, bit_depth)):
            return deep
        # First, because it takes half of OpenCV's time for the same pixels (docs/performance.md).
        pixels = _decode_with_simplejpeg(data, header, reduce)
        if pixels is None:
            pixels = _decode_with_opencv(data, header, reduce, background)
        if pixels is None:
            return _decode_with_pillow(header, data, where, background, max_pixels)
        # Undone here and not by OpenCV, because simplejpeg can't, and every decoder must give the same pixels.
        return DecodedImage(undo_orientation(pixels, read_orientation(header)))


def _decode_deep(
    data: bytes, header: Image.Image, where: str, background: tuple[int, int, int], bit_depth: int | None
) -> DecodedImage | None:
    """Return an image with more than 8 bits a channel; None where no decoder gives more than 8."""
    levels = read_levels(header, data)
    if levels is None:
        return None
    if int(levels.min(initial=0)) < 0:
        what = "has negative pixels, whose range is undefined"
        raise BadImageError(what, where=where, hint="save it with 8 bits, or 16 without sign")
    found = measure_depth(levels, header)
    pixels = composite(convert_levels(levels, header, bit_depth or found), background)
    dropped = levels.ndim == 3 and levels.shape[2] < len(header.getbands())
    return DecodedImage(undo_orientation(pixels, read_orientation(header)), found, dropped or has_unmarked_band(header))


def _compute_frame_scale(settings: ImageSettings, rows: int, columns: int) -> float:
    """Return the scale of an image in the frame; for ``squash``, that of the side that shrinks less."""
    both = settings.height / rows, settings.width / columns
    return min(both) if settings.resize == "pad" else max(both)


def _compute_cover_scale(min_size: tuple[int, int], rows: int, columns: int) -> float:
    return max(min_size[0] / rows, min_size[1] / columns)


def _open_header(data: bytes, where: str) -> Image.Image:
    try:
        return open_image(data)
    except UnidentifiedImageError as error:
        if is_heic(data):
            what = "is a HEIC photo, which needs a package to be read: install pi-heif, or convert it to JPEG"
            raise BadImageError(what, where=where) from error
        raise BadImageError(f"is {name_other_file(data)}", where=where) from error
    except Exception as error:  # readers raise whatever they like for a corrupted file
        raise BadImageError(f"has a corrupted header: {_format_reason(error)}", where=where) from error


def _choose_reduction(header: Image.Image, scale: Scale) -> int:
    """Return the largest factor of 8, 4, 2 and 1 by which a JPEG may be reduced during decoding."""
    if header.format not in ("JPEG", "MPO"):
        return 1
    columns, rows = header.size
    if read_orientation(header) >= TRANSPOSED:
        rows, columns = columns, rows
    return next((factor for factor in (8, 4, 2) if factor * scale(rows, columns) <= 1), 1)


def _decode_with_simplejpeg(data: bytes, header: Image.Image, reduce: int) -> Pixels | None:
    """Return ``(h, w, 3)`` uint8 RGB, or None where the file is not a valid 8-bit JPEG."""
    if header.format not in ("JPEG", "MPO") or header.mode not in _OPENCV_MODES["JPEG"]:
        return None
    width, height = header.size
    # libjpeg rounds a reduced size up.
    min_size = {"min_height": -(-height // reduce), "min_width": -(-width // reduce)} if reduce > 1 else {}
    try:
        # simplejpeg fails where libjpeg only warns; the other decoders decide whether such a file can be used.
        decoded: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", **min_size)
    except (ValueError, MemoryError):
        return None
    return decoded


def _decode_with_opencv(
    data: bytes, header: Image.Image, reduce: int, background: tuple[int, int, int]
) -> Pixels | None:
    """Return ``(h, w, 3)`` uint8 RGB, transparency on the background; None where Pillow must decode the file."""
    # The second image of an MPO is the other view of a stereo pair, not a frame.
    animated = getattr(header, "is_animated", False) and header.format != "MPO"
    if animated or header.mode not in _OPENCV_MODES.get(str(header.format), ()):
        return None
    if is_deep(header, data):
        return None
    transparent = "A" in header.mode or "transparency" in header.info
    # Only IMREAD_UNCHANGED keeps transparency; it ignores the orientation by itself, and always gives BGR.
    flags = cv2.IMREAD_UNCHANGED if transparent else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if reduce > 1:
        flags |= _REDUCED[reduce]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3:
        return None
    # OpenCV has dropped the transparency that the header announces.
    if transparent and pixels.shape[2] != 4:
        return None
    decoded: Pixels = composite(pixels, background, bgr=True) if transparent else pixels
    return decoded


def _decode_with_pillow(
    header: Image.Image, data: bytes, where: str, background: tuple[int, int, int], max_pixels: int
) -> DecodedImage:
    # Again, because other decoders take less, and a frame of a GIF may be larger than its header says.
    if excess := describe_excess(header, data, max_pixels, by_pillow=True):
        raise BadImageError(excess, where=where, hint=_TOO_LARGE)
    header.load()
    ImageOps.exif_transpose(header, in_place=True)
    if header.mode == "F":
        what = "has floating-point pixels, whose range is undefined"
        raise BadImageError(what, where=where, hint="save it with 8 or 16 bits")
    transparent = header.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in header.info
    pixels = np.empty((header.height, header.width, 4 if transparent else 3), np.uint8)
    top = 0
    for strip in split_rows(pixels):
        box = (0, top, header.width, top + len(strip))
        strip[...] = np.asarray(header.crop(box).convert("RGBA" if transparent else "RGB"))
        top += len(strip)
    extra = has_unmarked_band(header, pixels)
    # Frees its pixels, which are not needed any more.
    header.close()
    return DecodedImage(composite(pixels[:, :, :3] if extra else pixels, background), extra_band=extra)


@contextmanager
def _convert_decode_errors(header: Image.Image, where: str) -> Iterator[None]:
    """Convert what Pillow's readers raise in the block to a BadImageError."""
    try:
        yield
    except MemoryError as error:
        size = f"{header.size[0]} x {header.size[1]} pixels"
        raise BadImageError(f"its {size} don't fit into memory", where=where) from error
    except ImagetuneError:
        raise
    except Exception as error:  # readers raise whatever they like for a corrupted file
        reason = _format_reason(error)
        what = "is truncated" if "truncat" in reason.lower() else "is corrupted"
        raise BadImageError(f"{what}: {reason}", where=where) from error


def _resize(image: Pixels, height: int, width: int) -> Pixels:
    if image.shape[:2] == (height, width):
        return image
    rows, columns = image.shape[:2]
    # Shrinking bilinearly is seven times faster, but costs up to 2.6 dB (docs/performance.md).
    how = cv2.INTER_AREA if height * width < rows * columns else cv2.INTER_LINEAR
    whole = rows % height == 0 and columns % width == 0
    if height <= rows and width <= columns and not whole and rows * columns <= _MAX_FLOAT_PIXELS:
        # Bit-identical and a third faster than with bytes, whose areas OpenCV averages one value at a time.
        image = cv2.resize(image.astype(np.float32), (width, height), interpolation=how)
        rounded: Pixels = cv2.convertScaleAbs(image)
        return rounded
    scaled: Pixels = cv2.resize(image, (width, height), interpolation=how)
    return scaled


def _format_reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
