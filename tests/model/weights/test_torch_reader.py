from __future__ import annotations

import io
import os
import pickle
import struct
import types
from collections import OrderedDict

import numpy as np
import pytest

from imagetune.errors import WeightsError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.weights.packages import find_packaged_weights
from imagetune.model.weights.torch_reader import MAGIC, PROTOCOL, read_torch_file


class FloatStorage:
    pass


class Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


class Tensor:
    def __init__(self, storage, offset, shape, strides):
        self.arguments = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self):
        return (_rebuild_tensor_v2, self.arguments)


def _rebuild_tensor_v2(*arguments):
    return arguments


FloatStorage.__module__ = "torch"
_rebuild_tensor_v2.__module__ = "torch._utils"


class Writer(pickle._Pickler):
    """Writes PyTorch's persistent ids and names without PyTorch."""

    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", FloatStorage, value.key, "cpu", len(value.values), None)
        return None

    def save_name(self, value):
        self.write(b"c" + f"{value.__module__}\n{value.__name__}\n".encode())

    dispatch = pickle._Pickler.dispatch | {type: save_name, types.FunctionType: save_name}


def torch_bytes(state, storages=None, *, count=None):
    out = io.BytesIO()
    for part in (MAGIC, PROTOCOL, {"little_endian": True}):
        pickle.dump(part, out, 2)
    Writer(out, 2).dump(state)
    if storages is None:
        storages = {tensor.arguments[0].key: tensor.arguments[0] for tensor in state.values()}
    pickle.dump(sorted(storages), out, 2)
    for key in sorted(storages):
        values = np.asarray(storages[key].values, "<f4")
        out.write(struct.pack("<q", len(values) if count is None else count) + values.tobytes())
    return out.getvalue()


def read(tmp_path, data):
    (tmp_path / "file.pth").write_bytes(data)
    return read_torch_file(tmp_path / "file.pth")


def refused(tmp_path, data, message):
    with pytest.raises(WeightsError, match=message) as caught:
        read(tmp_path, data)
    assert caught.value.where == str(tmp_path / "file.pth")


def test_strided_views_are_put_in_order(tmp_path):
    storage = Storage("1", range(10))
    state = {"a": Tensor(storage, 1, (2, 3), (1, 2)), "b": Tensor(storage, 4, (), ())}
    found = read(tmp_path, torch_bytes(state))
    np.testing.assert_array_equal(found["a"], [[1, 3, 5], [2, 4, 6]])
    assert found["b"] == 4
    assert found["a"].flags["C_CONTIGUOUS"]


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (Tensor(Storage("1", range(4)), 0, (5,), (1,)), "reaches outside its storage"),
        (Tensor(Storage("1", range(4)), 2, (2, 2), (1, 1)), "reaches outside its storage"),
        (Tensor(Storage("1", range(4)), -1, (2,), (1,)), "impossible arguments"),
        (Tensor(Storage("1", range(4)), 0, (2,), (-1,)), "impossible arguments"),
        (Tensor(Storage("1", range(4)), 0, (2,), (1, 1)), "impossible arguments"),
        (Tensor(Storage("1", range(4)), 0, (1 << 40,), (0,)), "larger than its storage"),
    ],
)
def test_views_outside_their_storage_are_refused(tmp_path, tensor, message):
    refused(tmp_path, torch_bytes({"a": tensor}), message)


def test_a_stated_length_is_not_believed(tmp_path):
    state = {"a": Tensor(Storage("1", range(4)), 0, (4,), (1,))}
    refused(tmp_path, torch_bytes(state, count=1 << 40), "another length than stated")


def test_storages_that_no_tensor_names_are_refused(tmp_path):
    storage = Storage("1", range(4))
    state = {"a": Tensor(storage, 0, (4,), (1,))}
    refused(tmp_path, torch_bytes(state, {"1": storage, "2": storage}), "not those that its tensors name")


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return (os.system, (self.command,))


@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_hostile_pickle_runs_nothing(tmp_path, place):
    mark = tmp_path / "ran"
    parts = [MAGIC, PROTOCOL, {"little_endian": True}, {}]
    parts[place] = Hostile(f"touch {mark}")
    refused(tmp_path, b"".join(pickle.dumps(part, 2) for part in parts), "asks for posix.system")
    assert not mark.exists()


@pytest.mark.parametrize("name", ["builtins eval", "collections Counter", "torch load", "torch._utils _rebuild_tensor"])
def test_no_other_name_is_known(tmp_path, name):
    module, name = name.split()
    data = b"\x80\x02c" + f"{module}\n{name}\n.".encode()
    refused(tmp_path, data, f"asks for {module}.{name}")


@pytest.mark.parametrize("kept", [0, 5, 1000, 47_000, 60_000, 9_000_000, -1])
def test_a_truncated_file_is_refused(tmp_path, kept):
    refused(
        tmp_path,
        find_packaged_weights(get_backbone("efficientnet_lite0").package).read_bytes()[:kept],
        r"corrupted|cut short",
    )


@pytest.mark.parametrize("data", [b"PK\x03\x04", b"\x80\x02K\x01.", pickle.dumps(MAGIC) * 5, b"\xff" * 100])
def test_other_files_are_refused(tmp_path, data):
    with pytest.raises(WeightsError):
        read(tmp_path, data)
