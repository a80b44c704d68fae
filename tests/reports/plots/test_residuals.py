from __future__ import annotations

import numpy as np

from imagetune.reports.plots.learning_curves import draw_learning_curves
from imagetune.reports.plots.residuals import MAX_POINTS, draw_residuals, plot_residuals, sample_points


def test_the_drawings_name_the_number_whatever_it_looks_like() -> None:
    true = np.linspace(0, 10, 30)
    drawings = draw_residuals(true, true + 1, "price_$ & <b>")
    titles = ["Predicted and true", "Residuals by true number", "Residuals by prediction", "Histogram of the residuals"]
    assert [drawing.title for drawing in drawings] == titles
    for drawing in drawings[:3]:
        assert "price_$ &amp; &lt;b" in drawing.svg
    assert "mean +1" in drawings[1].svg
    assert "median +1" in drawings[3].svg


def test_ranges_take_the_place_of_the_mean() -> None:
    true = np.linspace(0, 10, 30)
    ranges = [{"centre": 2.5, "bias": {"value": 1.0, "low": 0.5, "high": 1.5}}]
    plain, ranged = (draw_residuals(true, true + 1, "age", by_prediction=rows) for rows in ((), ranges))
    assert "mean +1" in plain[2].svg
    assert "mean +1" not in ranged[2].svg
    assert ranged[1].svg == plain[1].svg


def test_many_points_are_drawn_at_random_and_stay_pairs() -> None:
    true = np.arange(5000.0)
    some, given = sample_points(true, 2 * true)
    assert len(some) == MAX_POINTS
    np.testing.assert_array_equal(given, 2 * some)
    np.testing.assert_array_equal(sample_points(true, 2 * true)[0], some)


def test_one_image_and_equal_numbers_can_be_drawn() -> None:
    assert len(draw_residuals(np.array([3.0]), np.array([3.0]), "age")) == 4
    assert len(plot_residuals(np.full(5, 3.0), np.full(5, 3.0), "age").axes) == 2


def test_learning_curves_show_the_metrics_that_the_task_has() -> None:
    def titles(**metrics: float) -> list[str]:
        lines = [{"stage": "head", "epoch": 1, "train": metrics, "val": metrics, "learning_rate": 1e-3}]
        return [drawing.title for drawing in draw_learning_curves(lines)]

    assert titles(loss=1.0, accuracy=0.5, f1=0.5) == ["Loss", "Accuracy", "F1 (mean of the classes)"]
    assert titles(loss=1.0, accuracy=0.5, f1=0.5, mae=0.4) == ["Loss", "Accuracy", "Mean absolute error"]
    assert titles(loss=1.0, mae=0.4, r2=0.1) == ["Loss", "Mean absolute error", "R squared"]
