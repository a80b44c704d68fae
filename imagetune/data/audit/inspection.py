"""One image, opened once: its hash, size, look, and what is wrong with it."""

from __future__ import annotations

import hashlib
import io
import math
import os
import struct
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

from imagetune.core.processes import prepare_worker, usable_cores, without_main_module
from imagetune.data.audit.appearance import appearance_of
from imagetune.data.audit.image_statistics import ImageFacts, Inspection
from imagetune.data.audit.statistics_cache import FactsStore, stamp_of
from imagetune.data.duplicates.perceptual import LOOK_VERSION, TRIM_SIDE, look_of, shrunk
from imagetune.data.loading.decode import decode_image, read_image_file
from imagetune.errors import BadImageError, ResourceError

# Below this, starting processes takes longer than the work.
_ALONE_BYTES = 48 << 20
_ALONE_COUNT = 2000
_CHUNK = 16
# To be raised when the same file would give other facts than before.
_VERSION = 3
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
}
_HEADER_ERRORS = (OSError, SyntaxError, ValueError, TypeError, EOFError, IndexError, KeyError)
_MAKER, _MODEL = 0x010F, 0x0110
_CAMERA_LENGTH = 80
# What libjpeg says while it goes on; it has no other way to tell.
_CORRUPTION = ("Corrupt JPEG data", "Premature end of JPEG", "Inconsistent progression", "Invalid SOS")
_VOICES = (*_CORRUPTION, "libpng", "JPEG", "jpeg", "TIFF", "webp", "AVIF", "[ WARN:", "[ERROR:", "Unsupported marker")


def inspect_images(
    paths: Sequence[str], *, background: tuple[int, int, int], max_pixels: int, look: bool, keep: bool = True
) -> list[Inspection]:
    """Inspect every image, in processes when there is much to do; what is known of an unchanged file is taken over.

    Args:
        paths: Files, each once.
        background: RGB under transparency.
        max_pixels: Larger images are bad, and are not decoded.
        look: Whether to compute perceptual hashes.
        keep: Whether results of earlier calls are used, and these are kept for later ones.

    Raises:
        ResourceError: A process died, which memory is the usual cause of.
    """
    inspect = partial(inspect_image, background=background, max_pixels=max_pixels, look=look)
    if not keep:
        return _inspect_all(paths, inspect)
    store = FactsStore([_VERSION, LOOK_VERSION, *map(version, _DECODERS), background, max_pixels, look])
    stamps = [stamp_of(path) for path in paths]
    known = store.read(paths, stamps)
    places = [place for place, one in enumerate(known) if one is None]
    fresh = _inspect_all([paths[place] for place in places], inspect)
    if fresh:
        store.write((one, stamps[place]) for one, place in zip(fresh, places, strict=True) if _lasts(one))
    rest = iter(fresh)
    return [next(rest) if one is None else one for one in known]


def inspect_image(path: str, *, background: tuple[int, int, int], max_pixels: int, look: bool) -> Inspection:
    """Open one image; a bad one is not an error here but a fact."""
    try:
        data = read_image_file(path)
    except BadImageError as error:
        return Inspection(ImageFacts(path, "", 0, 0, 0, None, error.what), b"")
    header = _header_facts(data, path)
    with _native_stderr() as printed:
        try:
            image = decode_image(
                data,
                where=path,
                background=background,
                max_pixels=max_pixels,
                at_least=_look_size(header.width, header.height),
            )
        except BadImageError as error:
            return Inspection(replace(header, error=error.what), b"")
        corruption = next((line for line in printed().splitlines() if line.startswith(_CORRUPTION)), None)
    if corruption:
        header = replace(header, notes=(*header.notes, ("corrupt-image", corruption.strip())))
    small = shrunk(image)
    code, thumbnail = look_of(small) if look else (None, b"")
    return Inspection(replace(header, perceptual_hash=code, appearance=appearance_of(small)), thumbnail)


def _lasts(one: Inspection) -> bool:
    """Return whether the same file would give the same facts again; memory may be there another time."""
    return "memory" not in (one.facts.error or "")


def _inspect_all(paths: Sequence[str], inspect: Callable[[str], Inspection]) -> list[Inspection]:
    cores = usable_cores()
    if cores == 1 or (len(paths) < _ALONE_COUNT and _total_bytes(paths) < _ALONE_BYTES):
        return [inspect(path) for path in paths]
    pool = ProcessPoolExecutor(cores, mp_context=get_context("spawn"), initializer=prepare_worker)
    try:
        with without_main_module():
            found = pool.map(inspect, paths, chunksize=_CHUNK)
        return list(found)
    except BrokenProcessPool as error:
        hint = "check one folder at a time, or lower data.max_pixels"
        raise ResourceError("a process that was checking images died", hint=hint) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _total_bytes(paths: Sequence[str]) -> int:
    total = 0
    for path in paths:
        try:
            total += Path(path).stat().st_size
        except OSError:
            continue
        if total >= _ALONE_BYTES:
            break
    return total


def _look_size(width: int, height: int) -> tuple[int, int]:
    """Return the height and width, either way round, that leave the look its pixels on the longer side."""
    shorter, longer = sorted((width, height))
    needed = max(1, math.ceil(TRIM_SIDE * shorter / max(longer, 1)))
    return needed, needed


def _header_facts(data: bytes, path: str) -> ImageFacts:
    """Return what the header tells; zeros for what is no image, which the decoder will say better."""
    digest, notes = hashlib.sha256(data).hexdigest(), []
    try:
        with Image.open(io.BytesIO(data)) as header:
            width, height = header.size
            kind = str(header.format)
            frames = 1 if kind == "MPO" else getattr(header, "n_frames", 1)
            camera = _camera(header)
    except _HEADER_ERRORS:
        return ImageFacts(path, digest, len(data), 0, 0, None, None)
    suffix = Path(path).suffix.lower()
    if kind in _SUFFIXES and suffix not in _SUFFIXES[kind]:
        notes.append(("wrong-suffix", f"is {kind}"))
    if frames > 1:
        notes.append(("many-frames", f"{frames} frames or pages"))
    return ImageFacts(path, digest, len(data), width, height, None, None, tuple(notes), kind, camera)


def _camera(header: Image.Image) -> str:
    """Return maker and model, which EXIF pads with blanks and zero bytes."""
    if "exif" not in header.info:
        return ""
    try:
        exif = header.getexif()
        words = [str(exif.get(tag, "")).strip("\0 ") for tag in (_MAKER, _MODEL)]
    except (*_HEADER_ERRORS, struct.error):
        return ""
    return " ".join(word for word in words if word)[:_CAMERA_LENGTH]


@contextmanager
def _native_stderr() -> Iterator[Callable[[], str]]:
    """Catch what C libraries print, the only way in which libjpeg tells of corruption that it decoded around.

    It works on the whole process, so images are inspected one at a time in each process. What others print meanwhile
    is passed on.
    """
    try:
        real = os.dup(2)
    except OSError:
        yield lambda: ""
        return
    with tempfile.TemporaryFile() as catch:

        def printed() -> str:
            if not os.fstat(catch.fileno()).st_size:  # nearly always
                return ""
            catch.seek(0)
            return catch.read().decode(errors="replace")

        os.dup2(catch.fileno(), 2)
        try:
            yield printed
        finally:
            os.dup2(real, 2)
            if foreign := [line for line in printed().splitlines(keepends=True) if not _of_a_decoder(line)]:
                os.write(real, "".join(foreign).encode())
            os.close(real)


def _of_a_decoder(line: str) -> bool:
    return not line.strip() or any(word in line for word in _VOICES)
