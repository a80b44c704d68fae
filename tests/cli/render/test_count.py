"""Progress of a long work: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import pytest

from imagetune.cli.render import count


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(count.time, "monotonic", lambda: now[0])
    return now


def test_elsewhere_a_line_each_half_minute_has_rate_and_time_left(clock, capsys):
    with count.show_count("predicted", "images") as (say, progress):
        progress(5000, 20_000)  # gone on with
        for clock[0], done in ((10.0, 6000), (31.0, 8100), (50.0, 9000), (62.0, 11_200)):
            progress(done, 20_000)
        say("kept", "all")
    assert capsys.readouterr().err.splitlines() == [
        "predicted   8,100 of 20,000 images, 100 a second, 2 min left",
        "predicted   11,200 of 20,000 images, 100 a second, 88 s left",
        "kept        all",
    ]


def test_a_short_work_says_nothing_of_its_progress(capsys):
    with count.show_count("predicted", "images") as (_, progress):
        for done in range(4):
            progress(done, 3)
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_the_time_left(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with count.show_count("predicted", "images") as (say, progress):
        progress(1, 3)
        say("note", "1 file [left] out")
    shown = capsys.readouterr().err
    assert "1/3" in shown
    assert "-:--:--" in shown
    assert "note        1 file [left] out" in shown
