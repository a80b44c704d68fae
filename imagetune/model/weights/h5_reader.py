"""Reader of Keras's weight files (``.weights.h5``, ``.h5`` and ``.keras``) that is safe with hostile files.

Only groups, names and numbers are read; nothing is deserialised, so no file can run code. Links out of the file,
numbers kept elsewhere, shapes that the file is too small for, and archives that would inflate are refused before
memory is allocated for them.
"""

from __future__ import annotations

import itertools
import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from imagetune.errors import ModelFileError

MAX_OBJECTS = 200_000
DEEPEST_GROUP = 32
LARGEST_ATTRIBUTE_BYTES = 16 << 20
# Trained weights hardly compress: what inflates by more than this factor isn't weights.
MAX_INFLATION = 4
CHUNK_SLACK_BYTES = 1 << 20
ARCHIVED_WEIGHTS = "model.weights.h5"


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
            source = stack.enter_context(_open_source(path))
            file = stack.enter_context(h5py.File(source, "r"))
            stored = _read_stored(file)
        except ModelFileError as error:
            raise _add_path(error, path) from error
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
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
def _open_source(path: Path) -> Iterator[Path | IO[bytes]]:
    """Yield the HDF5 file; inside a ``.keras`` archive it is read in place, without unpacking."""
    if not zipfile.is_zipfile(path):
        yield path
        return
    with zipfile.ZipFile(path) as archive:
        if ARCHIVED_WEIGHTS not in archive.namelist():
            raise ModelFileError(f"an archive without {ARCHIVED_WEIGHTS}: not a .keras file")
        member = archive.getinfo(ARCHIVED_WEIGHTS)
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            what = f"{ARCHIVED_WEIGHTS} is compressed, which Keras never does: refused, it could inflate without end"
            raise ModelFileError(what, hint=f"unzip it yourself and give {ARCHIVED_WEIGHTS}")
        with archive.open(member) as weights:
            yield weights


def _read_stored(file: h5py.File) -> StoredWeights:
    root = _find_member(file, "model_weights") if "model_weights" in file else file
    if isinstance(root, h5py.Group) and _has_attribute(root, "layer_names"):
        groups = tuple(_read_legacy_groups(root))
        return StoredWeights(
            tuple(layer for group in groups for layer in _split_group(group)), ordered=True, groups=groups
        )
    layers = tuple(_walk_layers(file, (), _Budget()))
    if not layers:
        raise ModelFileError("it holds no layers in any of Keras's layouts")
    return StoredWeights(layers, ordered=False)


class _Budget:
    """Budget of objects and depth of a file, so that loops of links and endless trees end."""

    def __init__(self) -> None:
        self.left = MAX_OBJECTS

    def spend(self, depth: int) -> None:
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
        keys = sorted((key for key in member if key.isdecimal()), key=int)
        if arrays := tuple(_check_array(member, key) for key in keys):
            yield StoredLayer(path, _read_text(member, "name"), arrays)


def _read_legacy_groups(root: h5py.Group) -> Iterator[StoredLayer]:
    """Yield the top layers with weights of a Keras 2 file, in its order; ``path`` also has the paths of the arrays."""
    for name in _read_names(root, "layer_names"):
        group = _find_member(root, name)
        if not isinstance(group, h5py.Group):
            raise ModelFileError(f"{name!r} is not a group")
        if weights := _read_names(group, "weight_names"):
            yield StoredLayer((name, *weights), name, tuple(_check_array(group, weight) for weight in weights))


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
        if not isinstance(current, h5py.Group) or part not in current:
            raise ModelFileError(f"{name!r} is named but missing")
        # h5py follows soft and external links without a word, and an external one opens another file.
        if not isinstance(current.get(part, getlink=True), h5py.HardLink):
            raise ModelFileError(f"{part!r} is a link to somewhere else: refused")
        current = current[part]
    return current


def _check_array(group: h5py.Group, name: str) -> StoredArray:
    dataset = _find_member(group, name)
    if not isinstance(dataset, h5py.Dataset):
        raise ModelFileError(f"{name!r} is not an array")
    if dataset.external or dataset.is_virtual:
        raise ModelFileError(f"{dataset.name} keeps its numbers in another file: refused")
    if dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise ModelFileError(f"{dataset.name} doesn't hold numbers")
    stated = math.prod(dataset.shape) * dataset.dtype.itemsize
    chunk = math.prod(dataset.chunks or ()) * dataset.dtype.itemsize
    if stated > MAX_INFLATION * dataset.id.get_storage_size() or chunk > MAX_INFLATION * stated + CHUNK_SLACK_BYTES:
        raise ModelFileError(f"{dataset.name} states {stated} bytes that the file doesn't hold: refused")
    return StoredArray(tuple(dataset.shape), dataset)


def _has_attribute(group: h5py.Group, name: str) -> bool:
    return name in group.attrs or f"{name}0" in group.attrs


def _read_names(group: h5py.Group, name: str) -> list[str]:
    """Return an attribute that is a list of names; Keras splits a long one over ``name0``, ``name1``, ..."""
    if name in group.attrs:
        return _decode_texts(_read_attribute(group, name))
    parts = itertools.takewhile(lambda part: part in group.attrs, (f"{name}{index}" for index in itertools.count()))
    return [text for part in parts for text in _decode_texts(_read_attribute(group, part))]


def _read_text(group: h5py.Group, name: str) -> str:
    return next(iter(_decode_texts(_read_attribute(group, name))), "") if name in group.attrs else ""


def _read_attribute(group: h5py.Group, name: str) -> Any:
    attribute = group.attrs.get_id(name)
    stated = attribute.get_space().get_simple_extent_npoints() * attribute.get_type().get_size()
    if stated > LARGEST_ATTRIBUTE_BYTES:
        raise ModelFileError(f"attribute {name!r} of {group.name} is larger than {LARGEST_ATTRIBUTE_BYTES} bytes")
    return group.attrs[name]


def _decode_texts(value: Any) -> list[str]:
    items = [value] if isinstance(value, (str, bytes)) else list(np.asarray(value).ravel())
    return [item.decode() if isinstance(item, bytes) else str(item) for item in items]
