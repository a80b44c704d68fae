import warnings

import cv2
import numpy as np

from imagetune.reports.plots.lr_range_test import plot_range_test, write_range_test_plot
from imagetune.training.measure.lr_find import MAX_LEARNING_RATE, MAX_STEPS, MIN_LEARNING_RATE, read_curve

RATES = np.geomspace(MIN_LEARNING_RATE, MAX_LEARNING_RATE, MAX_STEPS)
LOSSES = 1.5 - 0.5 * np.tanh(np.log10(RATES / 1e-3)) + 50 * np.maximum(np.log10(RATES), 0)


def words(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_both_suggestions_are_marked_and_named():
    found = read_curve("head", RATES, LOSSES)
    figure = plot_range_test(found)
    assert figure.axes[0].get_title(loc="left") == "Learning-rate range test of stage head"
    assert {f"valley: {found.valley:.2g}", f"steepest: {found.steepest:.2g}"} <= set(words(figure))


def test_the_explosion_does_not_hide_the_fall():
    low, high = plot_range_test(read_curve("head", RATES, LOSSES)).axes[0].get_ylim()
    assert low < 1.0
    assert 2.0 < high < 5.0 < LOSSES.max()


def test_a_test_that_found_nothing_can_be_drawn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for losses in ([], [1.0], [np.nan], list(np.linspace(1, 9, 40))):
            write_range_test_plot(read_curve("head", RATES[: len(losses)], np.array(losses)), tmp_path / "plot.png")
    height, width, _ = cv2.imread(str(tmp_path / "plot.png")).shape
    assert min(height, width) > 500
