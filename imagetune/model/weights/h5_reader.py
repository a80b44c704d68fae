"""Reader of Keras's weight files (``.weights.h5``, ``.h5`` and ``.keras``) that is safe with hostile files.

Only groups, names and numbers are read; nothing is deserialised, so no file can run code. Links out of the file,
numbers kept elsewhere or compressed, shapes that the file is too small for, texts of megabytes, and archives that would
inflate are refused before memory is allocated for them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from imagetune.core.archives import BROKEN, open_stored_archive
from imagetune.core.files import open_regular_file
from imagetune.errors import ModelFileError

# The largest networks of Keras have 3,000 arrays and layers.
MAX_OBJECTS = 20_000
DEEPEST_GROUP = 32
# HDF5 itself keeps attributes below 64 KB.
LARGEST_ATTRIBUTE_BYTES = 1 << 20
# A text of variable length is kept apart, and only HDF5 learns its size: so what it may read at once is limited.
LARGEST_TEXT_BYTES = 64 << 10
MAX_VARIABLE_TEXTS = 1000
MAX_TEXT_BYTES = 16 << 20
CHUNK_SLACK_BYTES = 1 << 20
ARCHIVED_WEIGHTS = "model.weights.h5"
_ZIP_MAGIC = b"PK\3\4"


@dataclass(frozen=True)
class StoredArray:
    """An array of a file that isn't read yet; its shape and size have been checked against the file."""

    shape: tuple[int, ...]
    dataset: Any

    def read(self) -> np.ndarray:
        """Return the array, with the shape and dtype of the file.

        Raises:
            ModelFileError: The array is corrupted, or holds NaN or infinity.
        """
        try:
            array = np.asarray(self.dataset[()])
        except (OSError, ValueError, RuntimeError) as error:
            raise ModelFileError(f"{self.dataset.name} can't be read: {error}") from error
        if not np.isfinite(array).all():
            raise ModelFileError(f"{self.dataset.name} holds numbers that are not finite")
        return array


@dataclass(frozen=True)
class StoredLayer:
    """A layer of a file with its arrays.

    Attributes:
        path: Path from the root, such as ``("layers", "functional", "layers", "conv2d_1")``; all but the last part name
            its model.
        name: Name of the layer; empty where the file doesn't keep it.
        arrays: Its weights, in Keras's order.
    """

    path: tuple[str, ...]
    name: str
    arrays: tuple[StoredArray, ...]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the layer's arrays."""
        return tuple(array.shape for array in self.arrays)

    @property
    def label(self) -> str:
        """Name of the layer in messages."""
        return self.name or "/".join(self.path)


@dataclass(frozen=True)
class StoredWeights:
    """All layers with weights in a file.

    Attributes:
        layers: In the file's own order where ``ordered``, else in no meaningful order.
        ordered: Whether the file is in the layout of Keras 2, which keeps the order from input to output.
        groups: For an ordered file, the arrays of each top layer in a row, nested models included.
    """

    layers: tuple[StoredLayer, ...]
    ordered: bool
    groups: tuple[StoredLayer, ...] = ()


@contextmanager
def open_weights(path: Path) -> Iterator[StoredWeights]:
    """Yield the layers of a weight file or saved model; their arrays can be read until the block ends.

    Raises:
        ModelFileError: The file is corrupted, hostile, or in none of Keras's layouts.
    """
    with ExitStack() as stack:
        try:
            source = _Source(stack.enter_context(_open_source(path)))
            file = stack.enter_context(h5py.File(source, "r"))
            stored = _read_stored(file, _Budget(source))
            source.largest = None
        except ModelFileError as error:
            raise _add_path(error, path) from error
        except (*BROKEN, RuntimeError, TypeError) as error:
            what = f"corrupted or not a weight file: {error}"
            raise ModelFileError(what, where=str(path), hint="copy the file again, or give another one") from error
        try:
            yield stored
        except ModelFileError as error:
            raise _add_path(error, path) from error


def _add_path(error: ModelFileError, path: Path) -> ModelFileError:
    hint = error.hint or "give a .weights.h5, .h5 or .keras file that Keras wrote"
    return ModelFileError(error.what, where=str(path), hint=hint)


@contextmanager
def _open_source(path: Path) -> Iterator[IO[bytes]]:
    """Yield the HDF5 file; inside a ``.keras`` archive it is read in place, without unpacking."""
    with open_regular_file(path) as file:
        if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
            yield file
            return
    with open_stored_archive(path) as archive:
        if ARCHIVED_WEIGHTS not in archive.namelist():
            raise ModelFileError(f"an archive without {ARCHIVED_WEIGHTS}: not a .keras file")
        with archive.open(ARCHIVED_WEIGHTS) as weights:
            yield weights


class _Source:
    """The file as HDF5 reads it: with a limit on what is read at once, which is what HDF5 has allocated for it.

    Args:
        file: The file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.largest: int | None = LARGEST_ATTRIBUTE_BYTES
        self.seek, self.tell, self.read = file.seek, file.tell, file.read

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer from the file, and return how much of it."""
        if self.largest is not None and len(buffer) > self.largest:
            raise OSError(f"it has a text or a table of {len(buffer)} bytes where names are expected")
        return self._file.readinto(buffer)  # type: ignore[attr-defined,no-any-return]  # buffered files have it


def _read_stored(file: h5py.File, budget: _Budget) -> StoredWeights:
    root = _find_member(file, "model_weights") if _get_link(file, "model_weights") is not None else file
    if isinstance(root, h5py.Group) and _has_attribute(root, "layer_names"):
        groups = tuple(_read_legacy_groups(root, budget))
        return StoredWeights(
            tuple(layer for group in groups for layer in _split_group(group)), ordered=True, groups=groups
        )
    layers = tuple(_walk_layers(file, (), budget))
    if not layers:
        raise ModelFileError("it holds no layers in any of Keras's layouts")
    return StoredWeights(layers, ordered=False)


class _Budget:
    """Budget of objects, depth and text of a file, so that loops of links and endless trees end.

    Args:
        source: The file, whose reads are limited further while a text of unknown size is read.
    """

    def __init__(self, source: _Source) -> None:
        self.left = MAX_OBJECTS
        self.text_left = MAX_TEXT_BYTES
        self._source = source

    @contextmanager
    def limit_text(self) -> Iterator[None]:
        """Let HDF5 read no text of more than `LARGEST_TEXT_BYTES` in the block."""
        before, self._source.largest = self._source.largest, LARGEST_TEXT_BYTES
        try:
            yield
        finally:
            self._source.largest = before

    def spend_text(self, texts: Sequence[str]) -> None:
        """Count texts that were read."""
        self.text_left -= sum(map(len, texts))
        if self.text_left < 0:
            raise ModelFileError(f"its names have more than {MAX_TEXT_BYTES} characters")

    def spend(self, depth: int = 0) -> None:
        """Count an object that lies so many groups deep."""
        self.left -= 1
        if self.left < 0 or depth > DEEPEST_GROUP:
            raise ModelFileError(f"more than {MAX_OBJECTS} objects, or deeper than {DEEPEST_GROUP} groups")


def _walk_layers(group: h5py.Group, path: tuple[str, ...], budget: _Budget) -> Iterator[StoredLayer]:
    """Yield the layers of a Keras 3 file: every group ``vars`` that holds arrays ``0``, ``1``, ..."""
    for name in group:
        budget.spend(len(path))
        member = _find_member(group, name)
        if not isinstance(member, h5py.Group):
            continue
        # A whole saved model also holds the slots of its optimizer, which look like layers.
        if not path and name == "optimizer":
            continue
        if name != "vars":
            yield from _walk_layers(member, (*path, name), budget)
            continue
        # As numbers: as text, 10 would come before 2.
        keys = []
        for key in member:
            budget.spend(len(path))
            if key.isdecimal():
                keys.append(key)
        if arrays := tuple(_check_array(member, key) for key in sorted(keys, key=int)):
            yield StoredLayer(path, _read_text(member, "name", budget), arrays)


def _read_legacy_groups(root: h5py.Group, budget: _Budget) -> Iterator[StoredLayer]:
    """Yield the top layers with weights of a Keras 2 file, in its order; ``path`` also has the paths of the arrays."""
    for name in _read_names(root, "layer_names", budget):
        budget.spend()
        group = _find_member(root, name)
        if not isinstance(group, h5py.Group):
            raise ModelFileError(f"{name!r} is not a group")
        weights = _read_names(group, "weight_names", budget)
        arrays = []
        for weight in weights:
            budget.spend()
            arrays.append(_check_array(group, weight))
        if arrays:
            yield StoredLayer((name, *weights), name, tuple(arrays))


def _split_group(group: StoredLayer) -> Iterator[StoredLayer]:
    """Yield the layers inside a top layer of a Keras 2 file, where a nested model keeps all arrays in one group."""
    name, *weights = group.path
    members: dict[str, list[StoredArray]] = {}
    for weight, array in zip(weights, group.arrays, strict=True):
        members.setdefault(weight.rpartition("/")[0], []).append(array)
    for parent, arrays in members.items():
        nested = len(members) > 1
        inner = parent.rpartition("/")[2] if nested else name
        yield StoredLayer((name, parent) if nested else (name,), inner, tuple(arrays))


def _find_member(group: h5py.Group, name: str) -> Any:
    """Return a member of a group; links that lead elsewhere are refused on every part of the path."""
    current: Any = group
    for part in filter(None, name.split("/")):
        link = _get_link(current, part) if isinstance(current, h5py.Group) else None
        if link is None:
            raise ModelFileError(f"{name!r} is named but missing")
        if not isinstance(link, h5py.HardLink):
            raise ModelFileError(f"{part!r} is a link to somewhere else: refused")
        current = current[part]
    return current


def _get_link(group: h5py.Group, name: str) -> Any:
    """Return what a name in a group stands for; None where there is none.

    h5py follows soft and external links without a word, even to see whether they exist, and an external one opens
    another file.
    """
    return group.get(name, getlink=True)


def _check_array(group: h5py.Group, name: str) -> StoredArray:
    dataset = _find_member(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise ModelFileError(f"{name!r} is not an array")
    if dataset.external or dataset.is_virtual:
        raise ModelFileError(f"{dataset.name} keeps its numbers in another file: refused")
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise ModelFileError(f"{dataset.name} doesn't hold numbers")
    # HDF5 gives a filter, such as deflate, all memory that its output takes, and may load it from a library.
    if dataset.id.get_create_plist().get_nfilters():
        what = f"{dataset.name} is compressed, which Keras never does: refused, it could inflate without end"
        raise ModelFileError(what, hint="write the file again without compression, such as by h5repack -f NONE")
    stated = math.prod(dataset.shape) * dataset.dtype.itemsize
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if stated > dataset.id.get_storage_size() or chunk > stated + CHUNK_SLACK_BYTES:
        raise ModelFileError(f"{dataset.name} states {stated} bytes that the file doesn't hold: refused")
    return StoredArray(tuple(dataset.shape), dataset)


def _has_attribute(group: h5py.Group, name: str) -> bool:
    return name in group.attrs or f"{name}0" in group.attrs


def _read_names(group: h5py.Group, name: str, budget: _Budget) -> list[str]:
    """Return an attribute that is a list of names; Keras splits a long one over ``name0``, ``name1``, ..."""
    if name in group.attrs:
        return _read_texts(group, name, budget)
    parts = itertools.takewhile(lambda part: part in group.attrs, (f"{name}{index}" for index in itertools.count()))
    return [text for part in parts for text in _read_texts(group, part, budget)]


def _read_text(group: h5py.Group, name: str, budget: _Budget) -> str:
    return next(iter(_read_texts(group, name, budget)), "") if name in group.attrs else ""


def _read_texts(group: h5py.Group, name: str, budget: _Budget) -> list[str]:
    """Return the texts of an attribute."""
    attribute = group.attrs.get_id(name)
    kind, count = attribute.get_type(), attribute.get_space().get_simple_extent_npoints()
    # Keras writes an empty list as one of numbers.
    if not count:
        return []
    if not isinstance(kind, h5py.h5t.TypeStringID):
        raise ModelFileError(f"attribute {name!r} of {group.name} is not text")
    if (kind.is_variable_str() and count > MAX_VARIABLE_TEXTS) or count * kind.get_size() > LARGEST_ATTRIBUTE_BYTES:
        what = f"attribute {name!r} of {group.name} is larger than {LARGEST_ATTRIBUTE_BYTES} bytes"
        raise ModelFileError(f"{what}, or has more than {MAX_VARIABLE_TEXTS} texts of variable length")
    with budget.limit_text():
        value = group.attrs[name]
    items = [value] if isinstance(value, (str, bytes)) else list(np.asarray(value).ravel())
    texts = [item.decode() if isinstance(item, bytes) else str(item) for item in items]
    budget.spend_text(texts)
    return texts
