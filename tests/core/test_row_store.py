import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from imagetune.core.row_store import MemoryRows, compute_row_key, find_cache_root, measure_free_disk, open_rows
from tests.conftest import fill_disk

ABOUT = {"kind": "images", "size": 4}
SHAPE = (2, 3)
ROW_BYTES = 24
MUCH = 10**6


def keys(*names):
    return [compute_row_key(name) for name in names]


def row(value):
    return np.full(SHAPE, value, np.float32)


@pytest.fixture
def table(tmp_path):
    def opened(*names, about=ABOUT, budget=MUCH):
        return open_rows(about, keys(*names), SHAPE, "<f4", budget_bytes=budget, root=tmp_path)

    return opened


def values(rows):
    found = [rows.get(position) for position in range(len(rows))]
    return [None if one is None else float(one[0, 0]) for one in found]


def test_a_row_is_there_once_it_was_put_and_in_later_openings(table):
    rows = table("a", "b")
    assert values(rows) == [None, None]
    rows.put(1, row(5))
    assert values(rows) == [None, 5.0]
    assert values(table("a", "b")) == [None, 5.0]


def test_rows_are_found_by_key_in_any_order_and_the_table_grows(table):
    table("a", "b").put(1, row(5))
    more = table("c", "b", "d")
    more.put(0, row(7))
    assert values(more) == [7.0, 5.0, None]
    assert values(table("a", "b", "c")) == [None, 5.0, 7.0]


def test_equal_keys_share_a_row(table):
    rows = table("a", "a")
    rows.put(0, row(1))
    assert values(rows) == [1.0, 1.0]


def test_other_settings_have_a_table_of_their_own(table):
    table("a").put(0, row(1))
    assert values(table("a", about={**ABOUT, "size": 5})) == [None]


def test_a_row_is_a_copy_that_may_be_changed(table):
    rows = table("a")
    rows.put(0, row(1))
    rows.get(0)[:] = 9
    assert values(rows) == [1.0]


def test_a_corrupted_row_is_not_there_and_can_be_put_again(table, tmp_path):
    table("a", "b").put(1, row(5))
    (file,) = tmp_path.glob("*/*/rows.bin")
    data = bytearray(file.read_bytes())
    data[ROW_BYTES] ^= 1
    file.write_bytes(data)
    rows = table("a", "b")
    assert values(rows) == [None, None]
    rows.put(1, row(6))
    assert values(table("a", "b")) == [None, 6.0]


@pytest.mark.parametrize("name", ["rows.bin", "sums.bin", "keys.bin"])
@pytest.mark.parametrize("corruption", ["cut", "gone"])
def test_files_that_do_not_fit_together_are_thrown_away(table, tmp_path, name, corruption):
    table("a", "b").put(0, row(5))
    (file,) = tmp_path.glob(f"*/*/{name}")
    file.unlink() if corruption == "gone" else file.write_bytes(file.read_bytes()[:-1])
    rows = table("a", "b")
    assert values(rows) == [None, None]
    rows.put(0, row(6))
    assert values(table("a", "b")) == [6.0, None]


def test_of_a_table_over_the_budget_the_first_rows_are_kept(table):
    rows = table("a", "b", "c", budget=2 * ROW_BYTES)
    for position in range(3):
        rows.put(position, row(position + 1))
    assert values(rows) == [1.0, 2.0, None]


def test_old_keys_make_room_for_those_that_are_wanted(table):
    table("a", "b").put(0, row(5))
    rows = table("c", "d", budget=3 * ROW_BYTES)
    rows.put(0, row(1))
    assert values(rows) == [1.0, None]
    assert values(table("a")) == [None]


def test_the_table_that_was_not_used_for_longest_goes_first(table, tmp_path):
    for age, size in ((300, 1), (200, 2), (100, 3)):
        about = {**ABOUT, "size": size}
        table(*"abcdefghij", about=about).put(0, row(size))
        (file,) = (one for one in tmp_path.glob("*/*/about.json") if f'"size": {size}' in one.read_text())
        os.utime(file, (file.stat().st_mtime - age,) * 2)
    table(*"abcdefghij", about={**ABOUT, "size": 4}, budget=2000)
    left = "".join(one.read_text() for one in tmp_path.glob("*/*/about.json"))
    assert [size for size in (1, 2, 3, 4) if f'"size": {size}' in left] == [3, 4]


def test_whoever_lost_its_table_meanwhile_reads_on(table, tmp_path):
    rows = table("a", "b")
    rows.put(0, row(5))
    table("a", about={**ABOUT, "size": 9}, budget=1)
    rows.put(1, row(6))
    assert values(rows) == [5.0, 6.0]
    assert values(pickle.loads(pickle.dumps(rows))) == [None, None]


def test_a_folder_that_cannot_be_written_means_no_table(tmp_path):
    (tmp_path / "file").write_text("")
    assert open_rows(ABOUT, keys("a"), SHAPE, "<f4", budget_bytes=MUCH, root=tmp_path / "file") is None


FILL = """
import pickle, sys
import numpy as np
rows = pickle.load(sys.stdin.buffer)
for position in range(int(sys.argv[1]), len(rows), 2):
    rows.put(position, np.full((2, 3), position, np.float32))
"""


def test_two_processes_fill_one_table(table):
    rows = table(*"abcdefgh")
    both = [subprocess.Popen([sys.executable, "-c", FILL, first], stdin=subprocess.PIPE) for first in "01"]
    for process in both:
        process.communicate(pickle.dumps(rows))
    assert values(rows) == [float(position) for position in range(8)]


def test_rows_in_memory_behave_alike():
    rows = MemoryRows(2, SHAPE, np.float32)
    rows.put(1, row(3))
    assert values(rows) == [None, 3.0]


def test_the_place_of_the_tables_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGETUNE_CACHE", str(tmp_path))
    assert find_cache_root() == tmp_path


def test_keys_keep_their_parts_apart():
    different = [("a", "b"), ("ab",), ("a", ["b"]), ("b", "a"), ("a", 1), ("a", "1")]
    assert len({compute_row_key(*parts) for parts in different}) == len(different)


def test_a_pickled_table_that_was_made_anew_meanwhile_gives_none_of_its_rows(table, tmp_path):
    rows = table("a", "b")
    rows.put(0, row(1))
    sent = pickle.dumps(rows)
    (tmp_path / "images").rename(tmp_path / "gone")
    other = table("b", "a")
    other.put(0, row(2))
    assert values(pickle.loads(sent)) == [None, None]
    assert values(rows) == [1.0, None]


def test_present_rows_are_listed(table):
    rows = table("a", "b", "c", budget=2 * ROW_BYTES)
    rows.put(1, row(1))
    assert rows.there().tolist() == [False, True, False]
    memory = MemoryRows(2, SHAPE, "<f4")
    memory.put(0, row(1))
    assert memory.there().tolist() == [True, False]


def test_the_same_rows_are_made_by_one_at_a_time(table):
    here, there = table("a"), table("a")
    order = []
    began = threading.Event()

    def make():
        began.set()
        with there.making([*keys("a"), None], lambda: None):
            order.append("second")

    other = threading.Thread(target=make)
    with here.making([*keys("a"), None], lambda: None):
        other.start()
        began.wait()
        time.sleep(0.3)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_whoever_waits_for_rows_can_be_stopped(table):
    def check():
        raise KeyboardInterrupt

    rows, wanted = table("a"), keys("a")
    with rows.making(wanted, check), pytest.raises(KeyboardInterrupt), table("a").making(wanted, check):
        raise AssertionError("it is made twice")
    with table("a").making(wanted, check):
        pass


def test_other_rows_of_a_table_are_made_meanwhile(table):
    def check():
        raise AssertionError("it waits")

    with table("a").making(keys("a"), check), table("b").making(keys("b"), check):
        pass


def test_a_full_disk_means_no_table(small_disk):
    fill_disk(small_disk)
    assert open_rows(ABOUT, keys("a", "b"), SHAPE, "<f4", budget_bytes=MUCH, root=small_disk / "cache") is None


def test_rows_that_a_full_disk_does_not_take_can_be_kept_in_memory(small_disk):
    names = [str(number) for number in range(40)]
    shape = (1024,)
    rows = open_rows(ABOUT, keys(*names), shape, "<f4", budget_bytes=MUCH, root=small_disk / "cache")
    rows.keep_overflow()
    fill_disk(small_disk, free_bytes=8 * 4096)
    for position in range(len(names)):
        rows.put(position, np.full(shape, position, np.float32))
    assert rows.there().all()
    assert rows.take(np.arange(40))[:, 0].tolist() == list(range(40))
    later = open_rows(ABOUT, keys(*names), shape, "<f4", budget_bytes=MUCH, root=small_disk / "cache")
    assert later is None or not later.there().all()


@pytest.mark.parametrize("place", ["/tmp/" + "x" * 300, "/dev/null/cache", "/nonexistent/cache"])
def test_a_place_that_no_cache_can_be_in_means_no_table(place):
    assert measure_free_disk(Path(place)) >= 0
    assert open_rows(ABOUT, keys("a"), SHAPE, "<f4", budget_bytes=MUCH, root=Path(place, "\0")) is None
