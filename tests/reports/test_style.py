"""The style of plots, which is ours alone."""

import matplotlib as mpl
from matplotlib.figure import Figure

from imagetune.reports.style import drawing_style, save_png


def test_a_users_matplotlibrc_changes_no_plot_and_stays_as_it_is(tmp_path):
    def draw(name):
        with drawing_style():
            figure = Figure((2, 1))
            figure.subplots().set_title("accuracy")
            save_png(figure, tmp_path / name)
        return (tmp_path / name).read_bytes()

    plain = draw("plain.png")
    # LaTeX, which isn't installed on most machines, and letters as large as the figure.
    with mpl.rc_context({"text.usetex": True, "axes.titlesize": 40}):
        assert draw("theirs.png") == plain
        assert mpl.rcParams["text.usetex"]
