"""Sets of photographs and of renderings."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from zipfile import ZipFile

from PIL import Image

from benchmarks.quality.sets.build import SourceImage, read_file_image
from benchmarks.quality.sets.drawings import Find

# Names of photographers and places, not of a kind of landscape.
NO_LANDSCAPE = {"bwerner", "dmottl", "loc", "mfield", "myrabella", "nasa"}
# Types of a deep-sky object in Stellarium's catalogue.
OBJECT_TYPES = {
    **dict.fromkeys((0, 1, 2, 3), "galaxy"),
    6: "open-cluster",
    7: "globular-cluster",
    11: "planetary-nebula",
    **dict.fromkeys((10, 13, 15, 17), "bright-nebula"),
    16: "cluster-with-nebula",
}


def collect_landscapes(find: Find) -> Iterator[SourceImage]:
    """Yield photographs of landscapes by what they show, which their names begin with."""
    for path in sorted((find("endless-sky-data") / "usr/share/games/endless-sky/images/land").glob("*.jpg")):
        label = re.split(r"\d", path.stem)[0]
        if label not in NO_LANDSCAPE:
            yield read_file_image(path, label)


def collect_furniture(find: Find) -> Iterator[SourceImage]:
    """Yield renderings of furniture by the room that the catalogue puts it in; one name of a catalogue is a group."""
    for archive in sorted((find("sweethome3d-furniture") / "usr/share/sweethome3d/furniture").glob("*.sh3f")):
        with ZipFile(archive) as file:
            catalogue = file.read("PluginFurnitureCatalog.properties").decode("latin-1")
        found = dict(re.findall(r"^(\w+#\d+)=(.*)$", catalogue.replace("\r", ""), flags=re.MULTILINE))
        for number in sorted(key.split("#")[1] for key in found if key.startswith("icon#")):
            label = found[f"category#{number}"].strip().replace(" ", "-")
            if label == "Miscellaneous":
                continue
            name = found[f"name#{number}"].strip()
            icon = found[f"icon#{number}"].strip().lstrip("/")
            read = read_zipped(archive, icon)
            yield SourceImage(
                f"{archive.stem}-{Path(icon).stem}-{number}", label, read, f"{archive.stem}-{label}-{name}"
            )


def collect_deep_sky(find: Find) -> Iterator[SourceImage]:
    """Yield photographs of the sky by the type of the object, which Stellarium's catalogue has."""
    folder = find("stellarium-data") / "usr/share/stellarium/nebulae/default"
    types = read_object_types(folder / "catalog.dat")
    for path in sorted(folder.glob("*.png")):
        found = re.match(r"(m|n|ic)(\d+)", path.stem)
        label = OBJECT_TYPES.get(types.get((found[1], int(found[2])), -1)) if found else None
        if label:
            yield read_file_image(path, label)


def read_object_types(path: Path) -> dict[tuple[str, int], int]:
    """Return the type of each object by its catalogue (``m`` for Messier, ``n`` for NGC, ``ic``) and number.

    The file is a compressed Qt stream, an object after the other: big-endian numbers, and texts of UTF-16 behind their
    length in bytes, all ones for none.
    """
    stream = _Stream(gzip.decompress(path.read_bytes()))
    stream.skip_texts(2)
    types: dict[tuple[str, int], int] = {}
    while not stream.ended:
        stream.skip(4 + 4 * 8)  # number in this file, place, brightness
        kind = stream.read_number()
        stream.skip_texts(1)
        stream.skip(2 * 8 + 4 + 6 * 8)  # size, angle, red shift, parallax, distance
        numbers = {catalogue: stream.read_number() for catalogue in ("n", "ic", "m")}
        # Numbers in eleven more catalogues, then the rest of them, some of which have texts.
        stream.skip(11 * 4)
        stream.skip_texts(1)
        stream.skip(2 * 4)
        stream.skip_texts(7)
        stream.skip(5 * 4)
        for catalogue, number in numbers.items():
            if number:
                types.setdefault((catalogue, number), kind)
    return types


class _Stream:
    """Reads the fields of a Qt stream in order."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def ended(self) -> bool:
        return self._at >= len(self._data)

    def skip(self, size: int) -> None:
        self._at += size

    def read_number(self) -> int:
        found: int = struct.unpack_from(">I", self._data, self._at)[0]
        self._at += 4
        return found

    def skip_texts(self, count: int) -> None:
        for _ in range(count):
            size = self.read_number()
            self._at += 0 if size == 0xFFFFFFFF else size


@lru_cache(maxsize=8)
def open_archive(archive: Path) -> ZipFile:
    """Return an open zip archive; its list of files is read once."""
    return ZipFile(archive)


def read_zipped(archive: Path, name: str) -> Callable[[], Image.Image]:
    """Return a function that opens an image in a zip archive."""

    def read() -> Image.Image:
        return Image.open(BytesIO(open_archive(archive).read(name)))

    return read
