import zipfile

import numpy as np
import pytest

from imagetune.core.archives import BROKEN, open_arrays, open_stored_archive


def read(path):
    with open_arrays(path) as arrays:
        return {name: arrays[name] for name in arrays.files}


def refused(path, message):
    with pytest.raises(BROKEN, match=message):
        read(path)


def rewrite(path, change):
    """Write an archive of one array whose .npy text a function changes, and return its path."""
    np.savez(path, a=np.zeros(4, "f4"))
    with zipfile.ZipFile(path) as archive:
        content = archive.read("a.npy")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", change(content))
    return path


def test_arrays_come_back_as_they_were_written(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(3), **{"b/1": np.float64(2)})
    found = read(tmp_path / "a.npz")
    assert found["a"].tolist() == [0, 1, 2]
    assert found["b/1"] == 2


def test_compressed_arrays_are_refused(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", a=np.zeros(1 << 20))
    refused(tmp_path / "a.npz", "compressed: refused")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.replace(b"(4,)", b"(9,)"), "states an array that it doesn't hold"),
        (lambda content: content.replace(b"<f4", b"|O "), "states an array that it doesn't hold|dtype"),
        (lambda content: content.replace(b"(4,)", b"(-4)"), "shape"),
        (lambda content: content.replace(b"(4,)", b"((((")[:200], "header|EOF|EOFError|array header"),
        (lambda content: content[:5], "magic string"),
        (lambda content: content[:6] + b"\x09" + content[7:], "version"),
        (lambda _: b"", "magic string"),
    ],
)
def test_an_array_of_another_size_than_its_header_states_is_refused(tmp_path, change, message):
    refused(rewrite(tmp_path / "a.npz", change), message)


def test_members_that_overlap_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.zeros(1000))
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        first = archive.infolist()[0]
        for number in range(5):
            copy = zipfile.ZipInfo(f"{number}.npy")
            copy.header_offset, copy.file_size, copy.compress_size, copy.CRC = (
                0,
                first.file_size,
                first.file_size,
                first.CRC,
            )
            archive.filelist.append(copy)
        archive._didModify = True
    refused(tmp_path / "a.npz", "larger than the file")


def test_a_directory_of_millions_of_members_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(50_000):
            archive.writestr(f"{number:060d}", b"")
    with pytest.raises(zipfile.BadZipFile, match="its directory is larger"), open_stored_archive(tmp_path / "a.zip"):
        pass


def test_two_members_of_one_name_and_what_is_no_file_are_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", b"")
        archive.writestr("a.npy", b"")
    refused(tmp_path / "a.npz", "two of a name")
    refused(tmp_path, "not a regular file")
