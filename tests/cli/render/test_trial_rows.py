from __future__ import annotations

import pytest

from imagetune.cli.render.trial_rows import Row, join_parts, lay_out_rows

NAMES = ("augmentation", "head.learning_rate", "unfreeze")
ROWS = [
    Row(("001", "done"), ("light", "0.00316", "last 3 blocks"), "cyan"),
    Row(("002-2", "stopped early"), ("none", "", "all")),
]


def lines(width):
    return [line for line, _ in lay_out_rows(ROWS, ("trial", "state"), NAMES, width=width)]


def test_settings_stand_in_columns_where_there_is_room():
    assert lines(None) == [
        "                                    head",
        "                                    learning",
        "trial  state          augmentation  rate      unfreeze",
        "001    done           light         0.00316   last 3 blocks",
        "002-2  stopped early  none                    all",
    ]


def test_settings_stand_below_the_trial_where_the_screen_is_narrow():
    assert lines(40) == [
        "trial  state",
        "001    done",
        "    augmentation light",
        "    head.learning_rate 0.00316",
        "    unfreeze last 3 blocks",
        "002-2  stopped early",
        "    augmentation none, unfreeze all",
    ]


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100])
def test_no_line_is_wider_than_the_screen(width):
    assert max(len(line) for line in lines(width)) <= width


def test_a_row_keeps_its_style():
    assert [style for line, style in lay_out_rows(ROWS, ("trial", "state"), NAMES, width=None)][-2:] == ["cyan", ""]


def test_parts_are_joined_as_far_as_they_fit_and_never_broken():
    assert join_parts(["aa", "bb", "cc dd ee"], ", ", 6) == ["aa, bb", "cc dd ee"]
    assert join_parts([], ", ", 6) == []
