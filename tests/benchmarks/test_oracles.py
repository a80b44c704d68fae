"""The surface of recorded trainings, and a short form of benchmarks/oracles.py on it."""

import csv

import numpy as np
import pytest

from benchmarks.oracles import build_search, measure
from benchmarks.surface import FACTORS, PATHS, RECORDED, Surface
from imagetune.search.space import draw_setting, is_setting


def rows():
    with RECORDED.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def values_of(row):
    return {PATHS[name]: type(levels[0])(row[name]) for name, levels in FACTORS.items()}


@pytest.mark.parametrize("metric", ["loss", "f1"])
def test_a_setting_that_was_trained_has_the_metric_that_it_reached(metric):
    surface = Surface(RECORDED, metric)
    complete = [row for row in rows() if row["optimizer"] in surface.optimizers]
    assert len(complete) >= 56
    assert [surface(values_of(row)) for row in complete] == pytest.approx([float(row[metric]) for row in complete])


def test_a_setting_between_two_trainings_lies_between_their_metrics():
    surface = Surface(RECORDED, "f1")
    row = values_of(rows()[0])
    rates = [1e-3, 10**-2.75, 3.16e-3]
    first, middle, second = (surface({**row, PATHS["learning_rate"]: rate}) for rate in rates)
    assert middle == pytest.approx((first + second) / 2, rel=1e-3)


def test_no_setting_is_better_than_the_best():
    random = np.random.default_rng(0)
    for metric, sign in (("loss", -1), ("f1", 1)):
        surface = Surface(RECORDED, metric)
        settings = [draw_setting(surface.spaces, random) for _ in range(300)]
        assert all(is_setting(surface.spaces, values) for values in settings)
        assert max(sign * surface(values) for values in settings) <= sign * surface.best + 1e-9


@pytest.mark.slow
def test_bayesian_search_beats_random_search_at_equal_trials():
    surface = Surface(RECORDED, "f1")
    found = {
        name: measure(build_search(name), surface, trials=16, seeds=range(100, 107)) for name in ("random", "bayesian")
    }
    assert found["bayesian"].median[-1] > found["random"].median[-1]
