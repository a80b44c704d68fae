"""From the bytes of an image file to an RGB array: the one decoder of fit, evaluate, predict and serve.

Pillow reads every header first, so that a pixel bomb is refused unread. simplejpeg decodes sound 8-bit JPEGs, OpenCV
JPEGs that are odd, PNG and still WebP. Pillow decodes the rest: CMYK, 16-bit, GIF, TIFF, BMP, AVIF, animations; and it
says what is wrong with an image that the others gave up.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps, UnidentifiedImageError

from imagetune.errors import BadImageError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from imagetune.recipe.data import ImageSettings

    Pixels = npt.NDArray[np.uint8]
    # At what scale an image of so many upright rows and columns will be used.
    Scale = Callable[[int, int], float]

# Images are decoded side by side in processes and threads; threads inside OpenCV would only get in their way.
cv2.setNumThreads(0)
# A bad image becomes a BadImageError; OpenCV's own account of it would tear the progress bar.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
# Each header is checked against max_pixels here; Pillow's fixed limit would warn below it or refuse above it.
Image.MAX_IMAGE_PIXELS = None

_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    IndexError,
    KeyError,
    struct.error,
    OverflowError,
)
_ORIENTATION = 0x0112
# From this orientation on, rows are columns.
_LYING = 5
_OPENCV_MODES = {
    "JPEG": ("L", "RGB"),
    "MPO": ("L", "RGB"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "WEBP": ("RGB", "RGBA"),
}
_REDUCED = {
    2: cv2.IMREAD_REDUCED_COLOR_2 & ~cv2.IMREAD_COLOR_BGR,
    4: cv2.IMREAD_REDUCED_COLOR_4 & ~cv2.IMREAD_COLOR_BGR,
    8: cv2.IMREAD_REDUCED_COLOR_8 & ~cv2.IMREAD_COLOR_BGR,
}
# Of an image that is shrunk, four bytes a value are held meanwhile.
_MAX_FLOAT_PIXELS = 1 << 21


def load_image(path: str, settings: ImageSettings, *, max_pixels: int) -> Pixels:
    """Read, decode and resize one image file.

    Returns:
        ``(settings.height, settings.width, 3)`` uint8 RGB.

    Raises:
        BadImageError: The file is not there or can't be decoded; ``where`` is its path.
    """
    data = read_image_file(path)
    image = _decoded(data, path, settings.background, max_pixels, partial(_scale_in_frame, settings))
    return resize_image(image, settings)


def read_image_file(path: str) -> bytes:
    """Return the bytes of an image file.

    Raises:
        BadImageError: It is not there, empty or not readable.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        what = "is a link to a file that does not exist" if Path(path).is_symlink() else "no such file"
        raise BadImageError(what, where=path) from error
    except OSError as error:
        raise BadImageError(f"can't be read: {error.strerror}", where=path) from error
    if not data:
        raise BadImageError("the file is empty", where=path)
    return data


def decode_image(
    data: bytes,
    *,
    where: str,
    background: tuple[int, int, int],
    max_pixels: int,
    at_least: tuple[int, int] | None = None,
) -> Pixels:
    """Decode the first frame of an image file, turned as its EXIF says, on the background where it is transparent.

    Args:
        data: The whole file.
        where: Path or name for error messages.
        background: RGB, 0 to 255.
        max_pixels: Images with more pixels than this are refused from their header.
        at_least: Height and width in pixels, upright, that the caller needs. A JPEG that is at least twice as large is
            then decoded at 1/2, 1/4 or 1/8 (libjpeg's scaled inverse DCT), never smaller than that. Eighths in between
            measured slower than the whole image.

    Returns:
        ``(height, width, 3)`` uint8 RGB.

    Raises:
        BadImageError: The image is truncated, corrupted, too large or not an image.
    """
    scale = None if at_least is None else partial(_scale_to_cover, at_least)
    return _decoded(data, where, background, max_pixels, scale)


def resize_image(image: Pixels, settings: ImageSettings) -> Pixels:
    """Bring an image to the size of the model's input.

    ``pad`` scales the whole image into the frame and centres it on the background, ``crop`` cuts a centred piece of
    the frame's shape, ``squash`` stretches. Shrinking averages areas, enlarging is bilinear.

    Args:
        image: ``(h, w, 3)`` uint8 RGB.
        settings: Size, resizing and background of the frame.

    Returns:
        ``(settings.height, settings.width, 3)`` uint8 RGB.
    """
    rows, columns = image.shape[:2]
    if (rows, columns) == (settings.height, settings.width):
        return image
    if settings.resize == "squash":
        return _scale(image, settings.height, settings.width)
    scale = _scale_in_frame(settings, rows, columns)
    if settings.resize == "crop":
        keep_rows = min(rows, max(1, round(settings.height / scale)))
        keep_columns = min(columns, max(1, round(settings.width / scale)))
        top, left = (rows - keep_rows) // 2, (columns - keep_columns) // 2
        return _scale(image[top : top + keep_rows, left : left + keep_columns], settings.height, settings.width)
    height = min(settings.height, max(1, round(rows * scale)))
    width = min(settings.width, max(1, round(columns * scale)))
    top, left = (settings.height - height) // 2, (settings.width - width) // 2
    bottom, right = settings.height - height - top, settings.width - width - left
    framed: Pixels = cv2.copyMakeBorder(
        _scale(image, height, width), top, bottom, left, right, cv2.BORDER_CONSTANT, value=settings.background
    )
    return framed


def _decoded(
    data: bytes,
    where: str,
    background: tuple[int, int, int],
    max_pixels: int,
    scale: Scale | None,
) -> Pixels:
    """Decode as `decode_image` does, but never smaller than ``scale``."""
    header = _open_header(data, where)
    with header:
        width, height = header.size
        if width * height > max_pixels:
            what = f"{width} x {height} = {width * height:,} pixels, more than the {max_pixels:,} allowed"
            raise BadImageError(what, where=where, hint="raise data.max_pixels if it is genuine")
        if header.format == "PNG" and (trouble := _png_trouble(data)):
            raise BadImageError(trouble, where=where)
        reduce = 1 if scale is None else _reduction(header, scale)
        pixels = _decode_with_simplejpeg(data, header, reduce)
        if pixels is None:
            pixels = _decode_with_opencv(data, header, reduce)
        if pixels is None:
            return _decode_with_pillow(header, where, background)
        return _turn(_on_background(pixels, background), _orientation(header))


def _scale_in_frame(settings: ImageSettings, rows: int, columns: int) -> float:
    """Return the scale at which a frame shows an image; of an image that is stretched, that of the larger side."""
    both = settings.height / rows, settings.width / columns
    return min(both) if settings.resize == "pad" else max(both)


def _scale_to_cover(least: tuple[int, int], rows: int, columns: int) -> float:
    return max(least[0] / rows, least[1] / columns)


def _open_header(data: bytes, where: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        start = data[:512].lstrip().lower()
        kind = "an HTML page" if start.startswith((b"<!doctype html", b"<html")) else "not an image that can be read"
        raise BadImageError(f"is {kind}", where=where) from error
    except _DECODE_ERRORS as error:
        raise BadImageError(f"has a corrupted header: {_reason(error)}", where=where) from error


def _png_trouble(data: bytes) -> str:
    """Return what is wrong with a PNG's chunks, or "". Decoders let some corruption pass that its checksums show."""
    at = 8
    while at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, end = data[at + 4 : at + 8], at + 12 + size
        if end > len(data):
            break
        # Chunks with a small first letter hold notes, not pixels.
        if kind[:1].isupper() and zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return f"is corrupted: wrong checksum in its {kind.decode('latin-1')} part"
        if kind == b"IEND":
            return ""
        at = end
    return "is truncated: the PNG has no end"


def _reduction(header: Image.Image, scale: Scale) -> int:
    """Return the largest of 8, 4, 2 and 1 by which a JPEG may be decoded smaller."""
    if header.format not in ("JPEG", "MPO"):
        return 1
    columns, rows = header.size
    if _orientation(header) >= _LYING:
        rows, columns = columns, rows
    return next((factor for factor in (8, 4, 2) if factor * scale(rows, columns) <= 1), 1)


def _decode_with_simplejpeg(data: bytes, header: Image.Image, reduce: int) -> Pixels | None:
    """Return ``(h, w, 3)`` RGB, or None where it is no sound 8-bit JPEG."""
    if header.format not in ("JPEG", "MPO") or header.mode not in _OPENCV_MODES["JPEG"]:
        return None
    width, height = header.size
    least = {"min_height": -(-height // reduce), "min_width": -(-width // reduce)} if reduce > 1 else {}
    try:
        # It is strict: what makes libjpeg warn is left to those who know whether it can be used.
        decoded: Pixels = simplejpeg.decode_jpeg(data, colorspace="RGB", **least)
    except (ValueError, MemoryError):
        return None
    return decoded


def _decode_with_opencv(data: bytes, header: Image.Image, reduce: int) -> npt.NDArray[np.uint8] | None:
    """Return ``(h, w, 3)`` RGB or ``(h, w, 4)`` RGBA, or None where Pillow must decide."""
    # The second image of an MPO is the other eye, not an animation.
    animated = getattr(header, "is_animated", False) and header.format != "MPO"
    if animated or header.mode not in _OPENCV_MODES.get(str(header.format), ()):
        return None
    if header.format == "PNG" and data[24:25] == b"\x10":
        return None
    see_through = "A" in header.mode or "transparency" in header.info
    flags = cv2.IMREAD_UNCHANGED if see_through else cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    if reduce > 1:
        flags |= _REDUCED[reduce]
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3:
        return None
    if see_through and pixels.shape[2] != 4:
        return None
    decoded: npt.NDArray[np.uint8] = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGBA) if see_through else pixels
    return decoded


def _decode_with_pillow(header: Image.Image, where: str, background: tuple[int, int, int]) -> Pixels:
    try:
        header.load()
        frame = ImageOps.exif_transpose(header)
    except _DECODE_ERRORS as error:
        reason = _reason(error)
        what = "is truncated" if "truncat" in reason.lower() else "is corrupted"
        raise BadImageError(f"{what}: {reason}", where=where) from error
    except MemoryError as error:
        size = f"{header.size[0]} x {header.size[1]} pixels"
        raise BadImageError(f"{size} don't fit into memory", where=where) from error
    return _on_background(_eight_bits(frame, where), background)


def _eight_bits(frame: Image.Image, where: str) -> npt.NDArray[np.uint8]:
    """Return any Pillow mode as ``(h, w, 3)`` or ``(h, w, 4)`` uint8."""
    if frame.mode == "F":
        what = "has floating-point pixels, whose range is not defined"
        raise BadImageError(what, where=where, hint="save it with 8 or 16 bits")
    if frame.mode.startswith("I"):
        deep = np.asarray(frame)
        # Pillow opens some 16-bit images as 32-bit integers; 8-bit values in such a frame stay as they are.
        grey = (deep >> 8 if frame.mode != "I" or int(deep.max(initial=0)) > 255 else deep).clip(0, 255)
        return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
    see_through = frame.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in frame.info
    return np.asarray(frame.convert("RGBA" if see_through else "RGB"))


def _on_background(pixels: npt.NDArray[np.uint8], background: tuple[int, int, int]) -> Pixels:
    """Composite RGBA onto the background, rounded to the nearest: ``(a * rgb + (255 - a) * background) / 255``."""
    if pixels.shape[2] == 3:
        return pixels
    alpha = pixels[:, :, 3:]
    if alpha.min() == 255:
        return np.ascontiguousarray(pixels[:, :, :3])
    # The largest sum is 255 * 255 + 127, which 16 bits hold.
    weight = alpha.astype(np.uint16)
    mixed = pixels[:, :, :3] * weight + np.array(background, np.uint16) * (255 - weight) + 127
    return (mixed // 255).astype(np.uint8)


def _orientation(header: Image.Image) -> int:
    if "exif" not in header.info and "xmp" not in header.info and "XML:com.adobe.xmp" not in header.info:
        return 1
    try:
        value: Any = header.getexif().get(_ORIENTATION, 1)
    except _DECODE_ERRORS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn(image: Pixels, orientation: int) -> Pixels:
    """Undo the camera's turn (EXIF 2.32, tag Orientation)."""
    if orientation == 1:
        return image
    if orientation >= _LYING:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _scale(image: Pixels, height: int, width: int) -> Pixels:
    if image.shape[:2] == (height, width):
        return image
    rows, columns = image.shape[:2]
    how = cv2.INTER_AREA if height * width < rows * columns else cv2.INTER_LINEAR
    whole = rows % height == 0 and columns % width == 0
    if height <= rows and width <= columns and not whole and rows * columns <= _MAX_FLOAT_PIXELS:
        # The same to the bit, and a third faster: OpenCV averages areas of bytes one value at a time.
        image = cv2.resize(image.astype(np.float32), (width, height), interpolation=how)
        rounded: Pixels = cv2.convertScaleAbs(image)
        return rounded
    scaled: Pixels = cv2.resize(image, (width, height), interpolation=how)
    return scaled


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
