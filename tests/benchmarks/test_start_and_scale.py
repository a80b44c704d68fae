"""The parts of both benchmarks that take no minutes, on tiny sets."""

import sys

import pytest

from benchmarks import scale, start


def test_a_table_of_rows_is_split_without_losing_any(tmp_path):
    metrics = scale.measure_rows(tmp_path, 4000)
    assert metrics.rows == 4000
    assert metrics.peak_mib >= metrics.start_mib > 10
    assert "| 4,000 |" in scale.rows_table(metrics)


def test_few_records_and_many_deliver_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(scale, "_BATCHES", 12)
    from benchmarks.sets import write_jpegs

    write_jpegs(tmp_path / "many", classes=2, count=8, size=(48, 64))
    found = [scale.measure_records(tmp_path, count) for count in (40, 800)]
    assert all(one.rate > 0 and one.first_seconds > 0 for one in found)
    assert "| 800 |" in scale.records_table(found)


def test_memory_is_noted_when_the_file_has_so_many_lines(tmp_path):
    code = "import time\nfor n in range(4):\n  print('line', file=open('lines', 'a')); time.sleep(0.3)"
    found = scale.watch("lines", [sys.executable, "-c", code], tmp_path, tmp_path / "lines", 1, 3)
    assert found.first_mib > 1
    assert found.last_mib > 1
    assert "| lines | 1 |" in scale.growth_table([found])


def test_a_command_that_fails_stops_the_benchmark(tmp_path):
    code = "raise SystemExit('no such thing')"
    with pytest.raises(SystemExit, match="no such thing"):
        scale.watch("lines", [sys.executable, "-c", code], tmp_path, tmp_path / "lines", 1, 3)


def test_the_second_check_opens_no_image(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGETUNE_CACHE", str(tmp_path / "elsewhere"))
    first, second = start.measure_audit(tmp_path, 20)
    assert (first.opened, second.opened) == (20, 0)
    assert "nothing changed" in start.audit_table([first, second])


def test_the_commands_are_there(tmp_path):
    sides = start.command_sides(tmp_path, {})
    assert sides["imagetune recipe validate"]() > sides["python -c pass"]() > 0


def test_the_split_images_have_every_class_on_every_side(tmp_path):
    start.write_split(tmp_path, 20)
    assert len(list(tmp_path.glob("*/*/*.jpg"))) == 13 + 4 + 4
    assert len(list(tmp_path.glob("*/*"))) == 3 * start.CLASSES
