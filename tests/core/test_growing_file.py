"""Files that grow: complete or absent under their names, and gone on with after whatever ended the process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from filelock import FileLock

from imagetune.core.growing_file import grow_file
from imagetune.errors import CheckpointError, ResourceError

ABOUT = {"model": "a", "images": [2, "f00"], "columns": ("path", "label")}


def grow(path, rows, *, resume=False, about=ABOUT, convert=None, stop=False):
    """Add rows up to a number of them, and finish the file or be interrupted."""
    with grow_file(path, about, resume=resume) as file:
        begun = file.rows
        for row in range(begun, rows):
            file.note["last"] = row
            file.add(f"row {row}\n".encode(), 1)
        if stop:
            raise KeyboardInterrupt
        file.finish(convert)
    return begun


def names(folder):
    return [path.name for path in folder.iterdir()]


def stopped(path, rows, **more):
    with pytest.raises(KeyboardInterrupt):
        grow(path, rows, stop=True, **more)


def test_a_finished_file_has_its_name_and_nothing_stays_beside_it(tmp_path):
    grow(tmp_path / "new" / "out.txt", 3)
    assert (tmp_path / "new" / "out.txt").read_text() == "row 0\nrow 1\nrow 2\n"
    assert names(tmp_path / "new") == ["out.txt"]


def test_a_stopped_file_is_absent_and_gone_on_with(tmp_path):
    path = tmp_path / "out.txt"
    stopped(path, 2)
    assert not path.exists()
    stopped(path, 3, resume=True)
    assert grow(path, 4, resume=True) == 3
    assert path.read_text() == "row 0\nrow 1\nrow 2\nrow 3\n"


def test_what_was_written_after_the_last_commit_is_written_again(tmp_path):
    path = tmp_path / "out.txt"
    stopped(path, 2)
    with (tmp_path / "out.txt.partial" / "rows").open("ab") as file:
        file.write(b"row 2\nro")
    assert grow(path, 3, resume=True) == 2
    assert path.read_text() == "row 0\nrow 1\nrow 2\n"


def test_a_note_comes_back_with_the_rows_it_is_about(tmp_path):
    stopped(tmp_path / "out.txt", 2)
    with grow_file(tmp_path / "out.txt", ABOUT, resume=True) as file:
        assert (file.rows, file.note) == (2, {"last": 1})
        file.finish()


def test_a_file_is_made_of_what_was_added(tmp_path):
    grow(tmp_path / "out.txt", 2, convert=lambda rows, made: made.write_bytes(rows.read_bytes().upper()))
    assert (tmp_path / "out.txt").read_text() == "ROW 0\nROW 1\n"


def test_what_is_kept_is_never_thrown_away_in_silence(tmp_path):
    path = tmp_path / "out.txt"
    stopped(path, 2)
    with pytest.raises(CheckpointError, match=r"has 2 rows kept in out\.txt\.partial; --resume goes on") as caught:
        grow(path, 3)
    assert caught.value.exit_code == 6
    assert grow(path, 3, resume=True) == 2


@pytest.mark.parametrize("key", ABOUT)
def test_a_file_made_with_something_else_is_not_gone_on_with(tmp_path, key):
    path = tmp_path / "out.txt"
    stopped(path, 2)
    with pytest.raises(CheckpointError, match=rf"what is kept of it \(2 rows\) was made with other {key}"):
        grow(path, 3, resume=True, about=ABOUT | {key: "else"})
    assert grow(path, 3, resume=True) == 2


def test_without_anything_kept_a_file_begins_unless_it_is_there(tmp_path):
    path = tmp_path / "out.txt"
    assert grow(path, 1, resume=True) == 0
    with pytest.raises(CheckpointError, match="is complete: nothing is kept to go on with"):
        grow(path, 1, resume=True)
    assert grow(path, 2) == 0
    stopped(tmp_path / "empty.txt", 0)
    assert names(tmp_path) == ["out.txt"]


def test_a_process_that_ended_after_the_rename_has_lost_nothing(tmp_path):
    path = tmp_path / "out.txt"
    stopped(path, 2)
    (tmp_path / "out.txt.partial" / "rows").rename(path)
    assert grow(path, 2, resume=True) == 2
    assert path.read_text() == "row 0\nrow 1\n"
    assert names(tmp_path) == ["out.txt"]


def test_two_processes_do_not_write_one_file(tmp_path):
    stopped(tmp_path / "out.txt", 1)
    with (
        FileLock(tmp_path / "out.txt.partial" / "lock"),
        pytest.raises(CheckpointError, match="is being written by another process"),
    ):
        grow(tmp_path / "out.txt", 2, resume=True)


def test_a_link_keeps_its_place(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "out.txt").symlink_to(tmp_path / "far" / "out.txt")
    grow(tmp_path / "out.txt", 1)
    assert (tmp_path / "out.txt").is_symlink()
    assert (tmp_path / "far" / "out.txt").read_text() == "row 0\n"


def test_a_device_gets_its_content_at_the_end_and_keeps_nothing(tmp_path):
    with pytest.raises(ResourceError, match="No space left on device"):
        grow(Path("/dev/full"), 1)
    grow(Path("/dev/null"), 1)
    with pytest.raises(CheckpointError, match="is no file"):
        grow(Path("/dev/null"), 1, resume=True)
    assert not Path("/dev/full.partial").exists()


def test_a_disk_that_becomes_full_keeps_what_was_on_it_before(small_disk):
    path = small_disk / "out.txt"
    stopped(path, 2)
    with (
        pytest.raises(ResourceError, match="No space left on device"),
        grow_file(path, ABOUT, resume=True) as file,
    ):
        file.add(bytes(1 << 20), 1)
        file.finish()
    assert grow(path, 3, resume=True) == 2
    assert path.read_text() == "row 0\nrow 1\nrow 2\n"


def test_an_unreadable_state_begins_again(tmp_path):
    stopped(tmp_path / "out.txt", 2)
    (tmp_path / "out.txt.partial" / "state.json").write_text("{")
    assert grow(tmp_path / "out.txt", 1, resume=True) == 0


@pytest.mark.parametrize("name", ["rows", "state.json", "."])
def test_what_leads_elsewhere_is_not_written_over(tmp_path, name):
    path, kept = tmp_path / "out.txt", tmp_path / "out.txt.partial"
    stopped(path, 2)
    place = kept / name
    place.resolve().rename(tmp_path / "elsewhere")
    place.resolve().symlink_to(tmp_path / "elsewhere")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(CheckpointError, match="leads elsewhere"):
        grow(path, 3, resume=True)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize(
    ("key", "value"),
    [("bytes", -5), ("bytes", "x"), ("bytes", 20 * 10**9), ("rows", 3.5), ("rows", -3), ("note", None), ("about", [])],
)
def test_a_state_that_was_never_written_is_refused(tmp_path, key, value):
    path = tmp_path / "out.txt"
    stopped(path, 2)
    state = path.with_name("out.txt.partial") / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {key: value}))
    with pytest.raises(CheckpointError):
        grow(path, 3, resume=True)
    assert not path.exists()
