import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from imagetune.core.csv_tables import write_csv
from imagetune.core.files import (
    append_json_line,
    compute_file_sha256,
    convert_disk_errors,
    overwrite_in_place,
    parse_json,
    read_bounded_bytes,
    read_bounded_text,
    read_json_lines,
    read_json_object,
    read_json_or_empty,
    replace_atomically,
    write_json,
    write_text,
)
from imagetune.errors import ResourceError
from tests.conftest import fill_disk


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(RuntimeError), replace_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == '{\n  "x": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="Out of range float values"):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_resource_error_that_names_the_place(tmp_path):
    with pytest.raises(ResourceError, match="No space left on device"), convert_disk_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_other_os_errors_go_through(tmp_path):
    with pytest.raises(FileNotFoundError), convert_disk_errors(tmp_path):
        raise FileNotFoundError


def test_a_line_cut_short_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    append_json_line(path, {"epoch": 1})
    append_json_line(path, {"epoch": 2})
    with path.open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert read_json_lines(path) == [{"epoch": 1}, {"epoch": 2}]


def test_hash_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert compute_file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_in_the_way_is_a_resource_error_that_says_so(tmp_path):
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ResourceError, match="in the way"):
        write_json(tmp_path / "taken" / "a.json", {})
    (tmp_path / "folder").mkdir()
    with pytest.raises(ResourceError, match="in the way"):
        write_json(tmp_path / "folder", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "taken"]


def test_a_json_object_that_is_not_there_is_empty_and_a_corrupted_one_an_error(tmp_path):
    path = tmp_path / "a.json"
    assert read_json_object(path) == read_json_or_empty(path) == {}
    write_json(path, {"x": 1})
    assert read_json_object(path) == read_json_or_empty(path) == {"x": 1}
    write_json(path, [1])
    assert read_json_object(path) == read_json_or_empty(path) == {}
    path.write_text('{"x": ')
    assert read_json_or_empty(path) == {}
    with pytest.raises(ValueError, match="Expecting value"):
        read_json_object(path)


def test_a_table_keeps_whatever_is_in_its_cells(tmp_path):
    path = tmp_path / "a.csv"
    name = os.fsdecode(b"caf\xe9.png")
    write_csv(path, ("path", "label"), [(name, 'a "b", c'), ("two\nlines", None)])
    assert path.read_bytes() == b'path,label\ncaf\xe9.png,"a ""b"", c"\n"two\nlines",\n'


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(pipe.read_text)
        write_text(pipe, "three lines")
        assert reading.result(timeout=10) == "three lines"
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_full_is_an_error_and_stays_a_device(tmp_path):
    link = tmp_path / "full"
    link.symlink_to("/dev/full")
    with pytest.raises(ResourceError, match="can't write"):
        write_text(link, "text")
    assert link.is_symlink()
    assert Path("/dev/full").is_char_device()


def test_the_target_of_a_link_is_replaced_and_the_link_stays(tmp_path):
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    target.write_text("old")
    link.symlink_to(target)
    write_text(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_folder_is_not_written_over(tmp_path):
    with pytest.raises(ResourceError):
        write_text(tmp_path, "text")


def test_numpys_scalars_are_written_as_pythons(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"count": np.int64(3), "marked": np.bool_(True), "share": np.float32(0.5)})
    assert read_json_object(path) == {"count": 3, "marked": True, "share": 0.5}
    with pytest.raises(TypeError, match="ndarray"):
        write_json(path, {"shares": np.zeros(3)})


def test_a_document_is_measured_before_it_is_read(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("ä" * 5, encoding="utf-8")
    assert read_bounded_text(path, max_bytes=10) == "ä" * 5
    with pytest.raises(OSError, match="it has 10 bytes, and the most is 9"):
        read_bounded_text(path, max_bytes=9)
    # Forty gigabytes that take no place on the disk: reading them would end in a lack of memory.
    os.truncate(path, 40 << 30)
    with pytest.raises(OSError, match="it has 42,949,672,960 bytes"):
        read_bounded_bytes(path, max_bytes=9)
    # Files of the kernel say that they are empty.
    with pytest.raises(OSError, match="over 9 bytes"):
        read_bounded_bytes(Path("/proc/self/status"), max_bytes=9)


def test_only_regular_files_are_documents(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path / "link", "a device"), (tmp_path, "folder|director")):
        with pytest.raises(OSError, match=kind):
            read_bounded_bytes(path, max_bytes=9)
    for name in ("absent", "null\0byte", "lone\ud800surrogate"):
        with pytest.raises(FileNotFoundError):
            read_bounded_bytes(tmp_path / name, max_bytes=9)
    with pytest.raises(OSError, match="too long"):
        read_bounded_bytes(tmp_path / ("a" * 300), max_bytes=9)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"[]," * 3_000_000 + b"0]", "about 6,000,001 values"),
        (b"1" * 5000, "4300 digits"),
        (b"\xff", "decode"),
        (b"{", "Expecting property name"),
    ],
)
def test_json_that_would_break_its_reader_is_a_value_error(content, what):
    with pytest.raises(ValueError, match=what):
        parse_json(content)


def test_a_file_is_overwritten_in_the_room_that_it_has_or_left_as_it_was(small_disk):
    path = small_disk / "status.json"
    path.write_text("old")
    fill_disk(small_disk)
    assert overwrite_in_place(path, '{"state": "failed"}')
    assert path.read_text() == '{"state": "failed"}'
    assert not overwrite_in_place(path, "x" * 10_000)
    assert path.read_text() == '{"state": "failed"}'
    assert not overwrite_in_place(small_disk / "nosuch", "text")
