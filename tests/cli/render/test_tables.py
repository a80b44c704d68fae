from imagetune.cli.render.tables import format_table


def test_columns_are_as_wide_as_their_widest_cell_and_numbers_stand_on_the_right():
    rows = [("backbone", "parameters"), ("vgg16", "14,714,688"), ("resnet50_v2", "9")]
    assert format_table(rows) == [
        "  backbone     parameters",
        "  vgg16        14,714,688",
        "  resnet50_v2           9",
    ]


def test_alignment_and_indent_are_the_callers():
    assert format_table([("a", "left"), ("bb", "x")], align="><", indent=0) == [" a  left", "bb  x"]


def test_a_row_may_be_short_and_no_line_ends_in_blanks():
    assert format_table([("accuracy", "0.9", "[0.8, 1.0]"), ("f1", "0.8", ""), ("all",)], align="<><") == [
        "  accuracy  0.9  [0.8, 1.0]",
        "  f1        0.8",
        "  all",
    ]


def test_no_rows_are_no_lines():
    assert format_table([]) == []
