"""Computation of image statistics: hashes, size, file type, camera, appearance and defects, from one reading."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from PIL import Image

from imagetune.core.processes import count_usable_cores, hide_main_module, prepare_worker
from imagetune.core.stopping import ask_before_each
from imagetune.data.audit.appearance import measure_appearance
from imagetune.data.audit.image_statistics import ImageStatistics, Inspection
from imagetune.data.audit.statistics_cache import StatisticsCache, read_file_stamp
from imagetune.data.duplicates.perceptual import (
    PERCEPTUAL_HASH_VERSION,
    TRIM_SIDE,
    compute_perceptual_hash,
    shrink_image,
)
from imagetune.data.loading.decode import HEIC_VERSION, decode_image, read_image_file
from imagetune.data.loading.formats import open_image
from imagetune.data.loading.structure import count_tiff_pages
from imagetune.data.sources.image_files import HEIC_SUFFIXES
from imagetune.errors import BadImageError, ResourceError

# With fewer bytes and fewer files than this, starting processes takes longer than the work.
_ALONE_BYTES = 48 << 20
_ALONE_COUNT = 2000
_CHUNK = 16
# Part of the cache key: to be raised when the same file would give other statistics than before.
_VERSION = 4
_DECODERS = ("simplejpeg", "opencv-python-headless", "pillow")
_SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "JPEG2000": (".jp2",),
    "HEIF": HEIC_SUFFIXES,
}
_MAKER, _MODEL = 0x010F, 0x0110
_CAMERA_LENGTH = 80
# What libjpeg prints while it goes on decoding; it reports corruption in no other way.
_CORRUPTION = ("Corrupt JPEG data", "Premature end of JPEG", "Inconsistent progression", "Invalid SOS")
_DECODER_MESSAGES = (
    *_CORRUPTION,
    "libpng",
    "JPEG",
    "jpeg",
    "TIFF",
    "webp",
    "AVIF",
    "[ WARN:",
    "[ERROR:",
    "Unsupported marker",
)


def inspect_images(
    paths: Sequence[str], *, background: tuple[int, int, int], max_pixels: int, descriptors: bool, keep: bool = True
) -> list[Inspection]:
    """Return the statistics of every image, from the cache for unchanged files, else computed by processes.

    Args:
        paths: Files, each once.
        background: RGB, 0 to 255, under transparency.
        max_pixels: Larger images are not decoded and get an error.
        descriptors: Whether to compute perceptual hashes and descriptors, as the search for near-duplicates needs.
        keep: Whether to use results of earlier calls and to keep these for later ones.

    Returns:
        One inspection for each path, in their order.

    Raises:
        ResourceError: A worker process died; too little memory is the most common cause.
    """
    inspect = partial(inspect_image, background=background, max_pixels=max_pixels, descriptors=descriptors)
    if not keep:
        return _inspect_all(paths, inspect)
    # Another version of a decoder may give other pixels, and so other statistics.
    store = StatisticsCache(
        [_VERSION, PERCEPTUAL_HASH_VERSION, *map(version, _DECODERS), HEIC_VERSION, background, max_pixels, descriptors]
    )
    stamps = [read_file_stamp(path) for path in paths]
    known = store.read(paths, stamps)
    places = [place for place, one in enumerate(known) if one is None]
    fresh = _inspect_all([paths[place] for place in places], inspect)
    if fresh:
        store.write((one, stamps[place]) for one, place in zip(fresh, places, strict=True) if _may_be_cached(one))
    rest = iter(fresh)
    return [next(rest) if one is None else one for one in known]


def inspect_image(path: str, *, background: tuple[int, int, int], max_pixels: int, descriptors: bool) -> Inspection:
    """Return the statistics of one image; one that can't be decoded raises nothing but has an ``error``."""
    try:
        data = read_image_file(path, max_pixels=max_pixels)
    except BadImageError as error:
        return Inspection(ImageStatistics(path, "", 0, 0, 0, None, error.what), b"")
    header = _read_header(data, path)
    with _capture_native_stderr() as printed:
        try:
            decoded = decode_image(
                data,
                where=path,
                background=background,
                max_pixels=max_pixels,
                at_least=_compute_decode_size(header.width, header.height),
            )
        except BadImageError as error:
            return Inspection(replace(header, error=error.what), b"")
        corruption = next((line for line in printed().splitlines() if line.startswith(_CORRUPTION)), None)
    if corruption:
        header = replace(header, notes=(*header.notes, ("corrupt-image", corruption.strip())))
    if decoded.extra_band:
        header = replace(header, notes=(*header.notes, ("extra-band", "has a fourth band, which isn't transparency")))
    small = shrink_image(decoded.pixels)
    code, thumbnail = compute_perceptual_hash(small) if descriptors else (None, b"")
    appearance = measure_appearance(small)
    return Inspection(
        replace(header, perceptual_hash=code, appearance=appearance, bit_depth=decoded.bit_depth), thumbnail
    )


def _may_be_cached(one: Inspection) -> bool:
    """Return whether an inspection may be cached: a lack of memory says nothing about the file."""
    # There may be enough memory the next time.
    return "memory" not in (one.statistics.error or "")


def _inspect_all(paths: Sequence[str], inspect: Callable[[str], Inspection]) -> list[Inspection]:
    cores = count_usable_cores()
    if cores == 1 or (len(paths) < _ALONE_COUNT and _sum_file_sizes(paths) < _ALONE_BYTES):
        return [inspect(path) for path in ask_before_each(paths)]
    pool = ProcessPoolExecutor(cores, mp_context=get_context("spawn"), initializer=prepare_worker)
    try:
        # Processes start when work is submitted, so only this call has to hide the main module.
        with hide_main_module():
            found = pool.map(inspect, paths, chunksize=_CHUNK)
        return list(ask_before_each(found))
    except BrokenProcessPool as error:
        hint = "audit one folder at a time, or lower data.max_pixels"
        raise ResourceError("a worker process of the audit died", hint=hint) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _sum_file_sizes(paths: Sequence[str]) -> int:
    total = 0
    for path in paths:
        try:
            total += Path(path).stat().st_size
        except (OSError, ValueError):
            continue
        if total >= _ALONE_BYTES:
            break
    return total


def _compute_decode_size(width: int, height: int) -> tuple[int, int]:
    """Return the minimum height and width to decode, so that the longer side keeps the descriptor's 128 pixels.

    EXIF may turn the image, so both are those of the shorter side.
    """
    shorter, longer = sorted((width, height))
    needed = max(1, math.ceil(TRIM_SIDE * shorter / max(longer, 1)))
    return needed, needed


def _read_header(data: bytes, path: str) -> ImageStatistics:
    """Return the statistics in an image's header; zeros where it can't be read, as the decoder will say why."""
    digest, notes = hashlib.sha256(data).hexdigest(), []
    try:
        with open_image(data) as header:
            width, height = header.size
            kind = str(header.format)
            frames = _count_frames(header, data)
            camera = _read_camera(header)
    except Exception:  # noqa: BLE001 - readers raise whatever they like for a corrupted file
        return ImageStatistics(path, digest, len(data), 0, 0, None, None)
    suffix = Path(path).suffix.lower()
    if kind in _SUFFIXES and suffix and suffix not in _SUFFIXES[kind]:
        notes.append(("wrong-suffix", f"is {kind}"))
    if frames > 1:
        notes.append(("many-frames", f"{frames} frames or pages"))
    return ImageStatistics(path, digest, len(data), width, height, None, None, tuple(notes), kind, camera)


def _count_frames(header: Image.Image, data: bytes) -> int:
    """Return the number of frames or pages; 1 where the first can be read and others can't."""
    # The second image of an MPO is the other view of a stereo pair, and each page of a TIFF may be as large as a file.
    if header.format in ("MPO", "TIFF"):
        return count_tiff_pages(data)
    try:
        return int(getattr(header, "n_frames", 1))
    except Exception:  # noqa: BLE001 - as below
        return 1


def _read_camera(header: Image.Image) -> str:
    """Return the camera's maker and model from EXIF, which pads them with blanks and zero bytes; "" without them."""
    if "exif" not in header.info:
        return ""
    try:
        exif = header.getexif()
        words = [str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKER, _MODEL)]
    except Exception:  # noqa: BLE001 - as above
        return ""
    return " ".join(word for word in words if word)[:_CAMERA_LENGTH]


@contextmanager
def _capture_native_stderr() -> Iterator[Callable[[], str]]:
    """Capture what C libraries print: libjpeg reports corruption that it decoded around in no other way.

    It redirects file descriptor 2 of the whole process, so each process inspects one image at a time. What others
    print meanwhile is passed on.
    """
    try:
        real = os.dup(2)
    except OSError:
        yield lambda: ""
        return
    with tempfile.TemporaryFile() as catch:

        def printed() -> str:
            # Nearly always nothing was printed, and a size costs less than reading.
            if not os.fstat(catch.fileno()).st_size:
                return ""
            catch.seek(0)
            return catch.read().decode(errors="replace")

        os.dup2(catch.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(real, 2)
            if foreign := [line for line in printed().splitlines(keepends=True) if not _is_decoder_message(line)]:
                os.write(real, "".join(foreign).encode())
            os.close(real)


def _is_decoder_message(line: str) -> bool:
    return not line.strip() or any(word in line for word in _DECODER_MESSAGES)
