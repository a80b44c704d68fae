from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from imagetune.core.row_store import find_cache_root
from imagetune.data.audit import statistics_cache
from imagetune.data.audit.inspection import inspect_images
from imagetune.data.audit.statistics_cache import StatisticsCache, read_file_stamp

SETTINGS = {"background": (255, 255, 255), "max_pixels": 10**8, "descriptors": True}
# What is opened below a folder, reported by the interpreter itself; hooks stay for ever.
_watched: dict[str, list[str]] = {}


def _note_open(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str):
        for folder, opened in _watched.items():
            if arguments[0].startswith(folder):
                opened.append(arguments[0])


sys.addaudithook(_note_open)


def write_image(path: Path, seed: int = 0) -> str:
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC))
    return str(path)


@pytest.fixture
def opened(tmp_path):
    """The files below tmp_path that were opened so far."""
    _watched[f"{tmp_path}/images/"] = opened = []
    yield opened
    _watched.clear()


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """Three images, one of them bad, and a cache of their own."""
    monkeypatch.setenv("IMAGETUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(statistics_cache, "SETTLED_SECONDS", 0.0)
    folder = tmp_path / "images"
    folder.mkdir()
    found = [write_image(folder / f"{seed}.png", seed) for seed in range(2)]
    (folder / "wrong.png").write_bytes(b"<html>not found</html>")
    return [*found, str(folder / "wrong.png")]


def test_a_second_check_opens_nothing_and_finds_the_same(paths, opened):
    first = inspect_images(paths, **SETTINGS)
    assert sorted(set(opened)) == sorted(paths)
    opened.clear()
    assert inspect_images(paths, **SETTINGS) == first
    assert opened == []
    assert first[0].statistics.perceptual_hash is not None
    assert first[2].statistics.error == "is an HTML page"


@pytest.mark.parametrize("how", ["content", "modified", "replaced"])
def test_a_changed_file_is_opened_again(paths, how):
    before = inspect_images(paths, **SETTINGS)
    status = Path(paths[0]).stat()
    if how == "content":
        write_image(Path(paths[0]), seed=9)
    elif how == "modified":
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    else:
        # An archive unpacked again: other content of the same size, and the same modification time.
        data = bytearray(Path(paths[0]).read_bytes())
        data[-20] ^= 1
        time.sleep(0.02)
        Path(paths[0]).write_bytes(data)
        os.utime(paths[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    after = inspect_images(paths, **SETTINGS)
    assert (after[0] == before[0]) is (how == "modified")
    assert after[1:] == before[1:]


def test_other_settings_are_another_entry(paths, opened):
    inspect_images(paths, **SETTINGS)
    opened.clear()
    small = inspect_images(paths, **{**SETTINGS, "max_pixels": 100})
    assert "pixels" in small[0].statistics.error
    assert opened
    assert inspect_images(paths, **SETTINGS)[0].statistics.error is None


def test_a_file_that_was_changed_just_now_is_not_kept(paths, opened, monkeypatch):
    monkeypatch.setattr(statistics_cache, "SETTLED_SECONDS", 2.0)
    old = time.time_ns() - 10 * 10**9
    os.utime(paths[0], ns=(old, old))
    inspect_images(paths, **SETTINGS)
    opened.clear()
    # Its change time is new, though its modification time is old.
    inspect_images(paths, **SETTINGS)
    assert paths[0] in opened


def test_nothing_is_kept_where_it_must_not(paths, opened):
    inspect_images(paths, **SETTINGS, keep=False)
    assert not find_cache_root().exists()
    inspect_images(paths, **SETTINGS)
    opened.clear()
    inspect_images(paths, **SETTINGS, keep=False)
    assert sorted(set(opened)) == sorted(paths)


def test_a_file_that_is_not_there_is_looked_for_each_time(paths):
    gone = [*paths, str(Path(paths[0]).with_name("later.png"))]
    assert inspect_images(gone, **SETTINGS)[-1].statistics.error == "no such file"
    write_image(Path(gone[-1]), seed=5)
    assert inspect_images(gone, **SETTINGS)[-1].statistics.error is None


def test_a_corrupted_database_makes_room_for_a_new_one(paths, opened):
    first = inspect_images(paths, **SETTINGS)
    database = find_cache_root() / statistics_cache.NAME
    database.write_bytes(b"x" * 5000)
    assert inspect_images(paths, **SETTINGS) == first
    opened.clear()
    assert inspect_images(paths, **SETTINGS) == first
    assert opened == []


def test_a_corrupted_row_is_not_believed(paths):
    first = inspect_images(paths, **SETTINGS)
    with sqlite3.connect(find_cache_root() / statistics_cache.NAME) as connection:
        connection.execute("UPDATE images SET statistics = replace(statistics, '64', '65')")
    connection.close()
    assert inspect_images(paths, **SETTINGS) == first


def test_a_locked_or_unwritable_database_is_done_without(paths, monkeypatch, tmp_path):
    monkeypatch.setattr(statistics_cache, "WAIT_SECONDS", 0.05)
    first = inspect_images(paths, **SETTINGS)
    connection = sqlite3.connect(find_cache_root() / statistics_cache.NAME, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    assert inspect_images(paths, **SETTINGS) == first
    connection.close()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("IMAGETUNE_CACHE", str(tmp_path / "file" / "cache"))
    assert inspect_images(paths, **SETTINGS) == first


def test_processes_share_it(paths):
    code = f"""
from imagetune.data.audit import statistics_cache
statistics_cache.SETTLED_SECONDS = 0.0
from imagetune.data.audit.inspection import inspect_images
for _ in range(20):
    assert len(inspect_images({paths!r}, background=(255, 255, 255), max_pixels=10**8, descriptors=True)) == 3
"""
    others = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(2)]
    assert [(other.communicate()[1], other.returncode) for other in others] == [(b"", 0)] * 2
    with sqlite3.connect(find_cache_root() / statistics_cache.NAME) as connection:
        assert connection.execute("SELECT count(*) FROM images").fetchone() == (3,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_what_was_not_used_for_longest_is_forgotten(paths, tmp_path, monkeypatch):
    monkeypatch.setattr(statistics_cache, "_DELETED_AT_ONCE", 1)
    inspected = inspect_images(paths, **SETTINGS, keep=False)
    pairs = list(zip(inspected, map(read_file_stamp, paths), strict=True))
    database = tmp_path / "statistics.sqlite3"
    StatisticsCache("one", path=database).write(pairs)
    for number in range(60):
        StatisticsCache(f"setting {number}", path=database, max_bytes=64 << 10).write(pairs[:1])
    assert StatisticsCache("one", path=database).read(paths, [stamp for _, stamp in pairs]) == [None] * 3
    newest = StatisticsCache("setting 59", path=database).read(paths[:1], [pairs[0][1]])
    assert newest == [inspected[0]]
    assert database.stat().st_size < 200 << 10
