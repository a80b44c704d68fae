import pytest

from imagetune.cli.render.lines import format_line, wrap_line

VERDICT = "verdict     Over-fitted. The training metric is higher than that of validation."


def test_a_long_line_goes_on_below_the_words_after_its_label():
    assert wrap_line(VERDICT, 40).split("\n") == [
        "verdict     Over-fitted. The training",
        "            metric is higher than that",
        "            of validation.",
    ]


def test_a_line_without_a_label_goes_on_at_its_beginning():
    assert wrap_line("nothing was left to do: raise search.trials", 30) == (
        "nothing was left to do: raise\nsearch.trials"
    )


def test_a_path_stays_whole():
    assert wrap_line("report      /somewhere/very/far/away/report.html", 30).split()[1] == (
        "/somewhere/very/far/away/report.html"
    )


@pytest.mark.parametrize(("line", "width"), [(VERDICT, None), (VERDICT, 200), ("  accuracy   0.9  (0.8 to 1.0)", 10)])
def test_a_line_that_fits_and_a_row_of_a_table_stay_as_they_are(line, width):
    assert wrap_line(line, width) == line


def test_texts_begin_in_one_column_behind_their_labels():
    assert format_line("verdict", "good") == "verdict     good"
    assert format_line("best recipe", "best.yaml") == "best recipe best.yaml"
    assert format_line("stage fine-tuning", "3 epochs") == "stage fine-tuning 3 epochs"
