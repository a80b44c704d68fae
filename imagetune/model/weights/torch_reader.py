"""Reader of PyTorch's old file layout (before 1.6), without PyTorch and without running code from the file.

Five pickles in a row, then raw numbers: a magic number, the protocol, properties of the machine that wrote it, the
state dictionary, the keys of the storages; and for each key its number of elements (int64) and its elements,
little-endian. A pickle may call anything that it names: this reader allows four names, and gives each a harmless
meaning.
"""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from imagetune.errors import WeightsError

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
LARGEST_FILE_BYTES = 1 << 30
MAX_TENSORS = 100_000
_ITEM_TYPES: dict[str, np.dtype[Any]] = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class _Storage:
    """A named array of numbers that tensors are views of."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view of a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_torch_file(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a state dictionary by name.

    Returns:
        Contiguous array, float32 or int64, by tensor name.

    Raises:
        WeightsError: The file is truncated or tampered with, names anything but the four allowed names, or is not in
            this layout.
    """
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise WeightsError(f"larger than {LARGEST_FILE_BYTES} bytes", where=str(path))
        with path.open("rb") as file:
            return _read_tensors(file)
    except WeightsError as error:
        raise WeightsError(error.what, where=str(path), hint="install the package again") from error
    except (OSError, MemoryError, RecursionError) as error:
        raise WeightsError(f"can't be read: {error}", where=str(path), hint="install the package again") from error


def _read_tensors(file: BinaryIO) -> dict[str, np.ndarray]:
    if _unpickle(file) != MAGIC or _unpickle(file) != PROTOCOL:
        raise WeightsError("not a PyTorch file of the old layout")
    if _unpickle(file).get("little_endian") is not True:
        raise WeightsError("the numbers are not little-endian")
    state, keys = _unpickle(file), _unpickle(file)
    tensors = _check_state(state)
    storages = _read_storages(file, keys, {tensor.storage for tensor in tensors.values()})
    return {name: _build_view(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}


class _Reader(pickle._Unpickler):
    """Unpickler that allows four names and calls nothing else.

    It is the one written in Python: that in C allocates a table as long as the largest number that the file gives an
    object, which eight bytes can make 32 GB.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _ITEM_TYPES:
            # A storage's class stands for nothing but its type of numbers, so its name will do.
            return name
        raise WeightsError(f"the file asks for {module}.{name}, which weights never need: it may be hostile")

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), str(), int(count), None) if kind in _ITEM_TYPES and count >= 0:
                return _Storage(key, _ITEM_TYPES[str(kind)], count)
        raise WeightsError(f"unknown storage {str(pid)[:80]!r}")


def _unpickle(file: BinaryIO) -> Any:
    try:
        return _Reader(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise WeightsError(f"corrupted: {error}") from error
    except (OverflowError, struct.error, UnicodeDecodeError) as error:
        raise WeightsError(f"corrupted: {error}") from error


def _rebuild_tensor(*arguments: Any) -> _Tensor:
    match arguments:
        case (_Storage() as storage, int(offset), tuple(shape), tuple(strides), *_):
            numbers = (offset, *shape, *strides)
            if len(shape) == len(strides) <= 8 and all(isinstance(n, int) and n >= 0 for n in numbers):
                return _Tensor(storage, offset, shape, strides)
    raise WeightsError("it holds a tensor with impossible arguments")


def _check_state(state: Any) -> dict[str, _Tensor]:
    if not isinstance(state, dict) or len(state) > MAX_TENSORS:
        raise WeightsError("it doesn't hold a state dictionary")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise WeightsError("it holds something other than named tensors")
        last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True))
        if 0 not in tensor.shape and tensor.offset + last >= tensor.storage.count:
            raise WeightsError(f"tensor {name!r} reaches outside its storage")
        # Strides of zero would let a few bytes stand for terabytes.
        # The product is one of Python's integers, which can't overflow.
        if np.prod(tensor.shape, dtype=object) > tensor.storage.count:
            raise WeightsError(f"tensor {name!r} is larger than its storage")
    return dict(state)


def _read_storages(file: BinaryIO, keys: Any, needed: set[_Storage]) -> dict[str, np.ndarray]:
    by_key = {storage.key: storage for storage in needed}
    if not isinstance(keys, list) or len(by_key) != len(needed) or sorted(map(str, keys)) != sorted(by_key):
        raise WeightsError("its storages are not those that its tensors name")
    return {key: _read_storage(file, by_key[key]) for key in keys}


def _read_storage(file: BinaryIO, storage: _Storage) -> np.ndarray:
    header = file.read(8)
    if len(header) != 8 or struct.unpack("<q", header)[0] != storage.count:
        raise WeightsError(f"storage {storage.key!r} is cut short or has another length than stated")
    data = _read_exactly(file, storage.count * storage.dtype.itemsize, storage.key)
    return np.frombuffer(data, dtype=storage.dtype)


def _read_exactly(file: BinaryIO, count: int, key: str) -> bytes:
    # A stated length is only believed when the file is long enough, before memory is allocated for it.
    here = file.tell()
    left = file.seek(0, 2) - here
    file.seek(here)
    if count > left:
        raise WeightsError(f"storage {key!r} is cut short: {count} bytes stated, {left} left in the file")
    return file.read(count)


def _build_view(tensor: _Tensor, storage: np.ndarray) -> np.ndarray:
    item = storage.dtype.itemsize
    strides = [stride * item for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
    return np.ascontiguousarray(view)
