from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import zipfile
import zlib

import h5py
import numpy as np
import pytest

from imagetune.errors import ModelFileError
from imagetune.model.weights.h5_reader import open_weights


def read_all(path):
    with open_weights(path) as stored:
        return {layer.label: [array.read() for array in layer.arrays] for layer in stored.layers}


def write(path, fill):
    with h5py.File(path, "w") as file:
        fill(file.create_group("layers/dense/vars"))
    return path


def test_names_and_numbers_come_back(tmp_path):
    def fill(group):
        group.attrs["name"] = "top"
        group["0"] = np.arange(6, dtype="float32").reshape(2, 3)
        group["1"] = np.zeros(3, "float32")

    found = read_all(write(tmp_path / "a.weights.h5", fill))
    assert list(found) == ["top"]
    np.testing.assert_array_equal(found["top"][0], np.arange(6).reshape(2, 3))


def refused(path, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        read_all(path)
    assert caught.value.exit_code == 9
    assert caught.value.where == str(path)


def test_text_is_not_a_weight_file(tmp_path):
    (tmp_path / "a.h5").write_text("hello")
    refused(tmp_path / "a.h5", "corrupted or not a weight file")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_a_truncated_file_is_refused(tmp_path, kept):
    path = write(tmp_path / "a.weights.h5", lambda group: group.create_dataset("0", data=np.ones((100, 100), "f4")))
    os.truncate(path, int(path.stat().st_size * kept))
    refused(path, "corrupted or not a weight file")


def test_links_out_of_the_file_are_refused(tmp_path):
    secret = write(tmp_path / "secret.h5", lambda group: group.create_dataset("0", data=np.ones(3, "f4")))
    link = h5py.ExternalLink(str(secret), "/layers/dense/vars/0")
    refused(write(tmp_path / "a.weights.h5", lambda group: group.__setitem__("0", link)), "link to somewhere else")
    soft = write(tmp_path / "b.weights.h5", lambda group: group.__setitem__("0", h5py.SoftLink("/layers")))
    refused(soft, "link to somewhere else")


def test_numbers_kept_in_another_file_are_refused(tmp_path):
    (tmp_path / "raw").write_bytes(bytes(12))
    external = [(str(tmp_path / "raw"), 0, 12)]
    path = write(tmp_path / "a.h5", lambda group: group.create_dataset("0", (3,), "f4", external=external))
    refused(path, "keeps its numbers in another file")

    def virtual(group):
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "raw.h5"), "x", (3,))
        group.create_virtual_dataset("0", layout)

    refused(write(tmp_path / "b.h5", virtual), "keeps its numbers in another file")


def test_a_shape_that_the_file_does_not_hold_is_refused_without_taking_memory(tmp_path):
    def fill(group):
        group.create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(1024, 1024))

    refused(write(tmp_path / "a.h5", fill), "states 4398046511104 bytes that the file doesn't hold")


def test_a_huge_chunk_is_refused(tmp_path):
    def fill(group):
        data = group.create_dataset("0", (4,), "f4", maxshape=(None,), chunks=(1 << 24,))
        data[:] = 1

    refused(write(tmp_path / "a.h5", fill), "that the file doesn't hold")


def test_compressed_numbers_are_refused_as_a_chunk_may_inflate_to_any_size(tmp_path):
    def fill(group):
        group.create_dataset("0", data=np.zeros((64, 64), "f4"), chunks=(64, 64), compression="gzip")
        # What inflates to 64 MB stands where 16 KB are stated.
        group["0"].id.write_direct_chunk((0, 0), zlib.compress(bytes(64 << 20)))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(write(tmp_path / "a.h5", fill), "compressed, which Keras never does")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10


def test_a_text_of_megabytes_where_a_name_belongs_is_refused_before_it_is_read(tmp_path):
    def fill(group):
        group["0"] = np.ones(3, "f4")
        group.attrs["name"] = "x" * (8 << 20)

    path = write(tmp_path / "a.h5", fill)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "a text or a table of 8[0-9]{6} bytes where names are expected")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 << 10


def test_names_of_variable_length_are_limited_in_number_and_all_together(tmp_path):
    with h5py.File(tmp_path / "many.h5", "w") as file:
        file.attrs.create("layer_names", ["a"] * 1001, dtype=h5py.string_dtype())
    refused(tmp_path / "many.h5", "more than 1000 texts of variable length")
    with h5py.File(tmp_path / "long.h5", "w") as file:
        for layer in range(3):
            group = file.create_group(f"layers/dense_{layer}/vars")
            group["0"] = np.ones(1, "f4")
            group.attrs.create("name", np.array([b"x" * 30000]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("imagetune.model.weights.h5_reader.MAX_TEXT_BYTES", 50_000)
            file.flush()
            refused(tmp_path / "long.h5", "its names have more than 50000 characters")


def test_endless_links_to_one_array_end(tmp_path):
    def fill(group):
        group["0"] = np.ones(1, "f4")
        for number in range(1, 20_001):
            group[str(number)] = group["0"]

    refused(write(tmp_path / "a.h5", fill), "more than 20000 objects")


def test_loops_of_groups_end(tmp_path):
    def fill(group):
        group.parent["again"] = group.parent.parent

    refused(write(tmp_path / "a.h5", fill), "deeper than 32 groups")


def test_text_and_objects_are_not_numbers(tmp_path):
    refused(write(tmp_path / "a.h5", lambda group: group.__setitem__("0", "os.system('x')")), "doesn't hold numbers")


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", lambda group: group.__setitem__("0", np.array([1, np.nan], "f4")))
    refused(path, "not finite")


def test_a_file_without_layers_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = 1.0
    refused(tmp_path / "a.h5", "no layers in any of Keras's layouts")


def test_names_that_lead_nowhere_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["layer_names"] = [b"conv"]
    refused(tmp_path / "a.h5", "'conv' is named but missing")


def archive(path, weights, compression=zipfile.ZIP_STORED, config="{}"):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("config.json", config)
        file.writestr("model.weights.h5", weights)
    return path


def test_an_archive_that_would_inflate_is_refused(tmp_path):
    path = archive(tmp_path / "bomb.keras", bytes(100 << 20), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "is compressed: refused, it could inflate without end")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_an_archive_without_weights_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as file:
        file.writestr("config.json", "{}")
    refused(tmp_path / "a.keras", "not a .keras file")


def test_an_archive_with_corrupted_weights_is_refused(tmp_path):
    refused(archive(tmp_path / "a.keras", b"hello"), "corrupted or not a weight file")


def test_code_in_the_configuration_of_an_archive_is_never_run(tmp_path):
    weights = write(tmp_path / "w.weights.h5", lambda group: group.create_dataset("0", data=np.ones(3, "f4")))
    mark = tmp_path / "ran"
    hostile = {
        "module": "builtins",
        "class_name": "exec",
        "config": {"module": "os", "class_name": "system", "config": f"touch {mark}"},
    }
    path = archive(tmp_path / "a.keras", weights.read_bytes(), config=json.dumps(hostile))
    assert [array[0].tolist() for array in read_all(path).values()] == [[1, 1, 1]]
    assert not mark.exists()


def test_reading_weights_needs_no_keras(tmp_path):
    path = write(tmp_path / "a.h5", lambda group: group.create_dataset("0", data=np.ones(3, "f4")))
    code = (
        "import sys; from pathlib import Path; from imagetune.model.weights.h5_reader import open_weights\n"
        "with open_weights(Path(sys.argv[1])) as stored: print(len(stored.layers), 'keras' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "False"]
