"""Importance on functions whose analysis of variance is known on paper."""

import math

import numpy as np
import pytest

from imagetune.search.results.axes import Axis
from imagetune.search.results.importance import MIN_SETTINGS, Observation, analyse, clip_outliers

AXES = (
    Axis("slope", "uniform", 0.0, 1.0),
    Axis("rate", "log_uniform", 1e-5, 1e-1),
    Axis("kind", "choice", values=("x", "y", "z")),
    Axis("idle", "uniform", 0.0, 1.0),
    Axis("count", "int", 1, 8),
)
STEPS = {"x": 0.0, "y": 0.6, "z": 1.2}


def additive(values):
    """The variances of a uniform slope s are s^2 / 12, those of the choice its own."""
    return 3 * values["slope"] + 1.5 * AXES[1].place(values["rate"]) + STEPS[values["kind"]]


def drawn(rng, axes=AXES):
    values = {}
    for axis in axes:
        if axis.is_choice:
            values[axis.name] = axis.values[rng.integers(len(axis.values))]
        elif axis.kind == "int":
            values[axis.name] = int(rng.integers(axis.low, axis.high + 1))
        else:
            values[axis.name] = axis.value(rng.random())
    return values


def observed(count, metric, *, noise=0.0, seed=0, axes=AXES):
    rng = np.random.default_rng(seed)
    points = [drawn(rng, axes) for _ in range(count)]
    return [
        Observation(values, metric(values) + noise * float(rng.normal()), str(number))
        for number, values in enumerate(points)
    ]


def by_name(analysis):
    return {found.axis.name: found for found in analysis.spaces}


@pytest.fixture(scope="module")
def additive_analysis():
    return analyse(AXES, observed(200, additive, noise=0.2), seed=1)


def test_the_shares_are_those_of_the_function(additive_analysis):
    parts = {"slope": 9 / 12, "rate": 2.25 / 12, "kind": float(np.var([0.0, 0.6, 1.2])), "idle": 0.0, "count": 0.0}
    found = by_name(additive_analysis)
    for name, part in parts.items():
        assert found[name].share == pytest.approx(part / sum(parts.values()), abs=0.08), name
    assert additive_analysis.spaces[0].axis.name == "slope"
    assert additive_analysis.together < 0.1
    assert additive_analysis.fit > 0.8


def test_spaces_that_matter_are_distinguished_from_those_that_do_not(additive_analysis):
    found = by_name(additive_analysis)
    assert {"slope", "kind"} <= {name for name, one in found.items() if one.told} <= {"slope", "rate", "kind"}
    assert all(one.spread < 0.1 for one in found.values())


def test_the_effect_is_the_function_itself(additive_analysis):
    found = by_name(additive_analysis)
    slope = found["slope"]
    inner = (slope.places > 0.1) & (slope.places < 0.9)
    line = np.polynomial.Polynomial.fit(slope.places[inner], slope.effect[inner], 1).convert()
    assert line.coef[1] == pytest.approx(3, abs=0.4)
    assert np.diff(found["kind"].effect) == pytest.approx([0.6, 0.6], abs=0.2)
    assert np.ptp(found["idle"].effect) < 0.3


def test_what_only_combinations_explain_is_no_space_s_own():
    axes = AXES[:1] + AXES[3:4]
    analysis = analyse(axes, observed(200, lambda v: (v["slope"] - 0.5) * (v["idle"] - 0.5), axes=axes), seed=1)
    assert analysis.together > 0.8
    assert all(found.share < 0.15 for found in analysis.spaces)


@pytest.mark.parametrize("count", [10, 40])
def test_chance_alone_is_called_chance(count):
    rng = np.random.default_rng(3)
    analysis = analyse(AXES, observed(count, lambda _: float(rng.normal())))
    assert not any(found.told for found in analysis.spaces)
    assert analysis.fit < 0.3


def test_a_space_that_is_not_used_does_not_matter_there():
    def metric(values):
        return 1.0 if values["kind"] == "x" else 2.0 + values.get("slope", 0.0)

    rows = []
    for seen in observed(200, lambda _: 0.0):
        values = {name: value for name, value in seen.values.items() if name != "slope" or seen.values["kind"] != "x"}
        rows.append(Observation(values, metric(values), seen.settings))
    found = by_name(analyse(AXES, rows, seed=1))
    # Of three kinds two use the slope: its mean effect is 2/3 of its own, and the rest of it is the kind's with it.
    variance = {"kind": float(np.var([1.0, 2.5, 2.5])), "slope": 4 / 9 / 12}
    whole = variance["kind"] + 2 / 3 / 12
    assert found["kind"].share == pytest.approx(variance["kind"] / whole, abs=0.06)
    assert found["slope"].share == pytest.approx(variance["slope"] / whole, abs=0.04)
    assert found["slope"].told


def test_where_the_trials_crowd_does_not_change_what_matters():
    """Nine of ten trials at the good end, as a bayesian search would have them."""
    rng = np.random.default_rng(0)
    rows = []
    for number, seen in enumerate(observed(200, lambda _: 0.0)):
        values = dict(seen.values)
        if number % 10:
            values["slope"] = 0.8 + 0.2 * float(rng.random())
        rows.append(Observation(values, additive(values), seen.settings))
    found = by_name(analyse(AXES, rows, seed=1))
    assert found["slope"].share == pytest.approx(0.637, abs=0.12)


def test_one_diverged_loss_is_not_all_there_is():
    rows = observed(60, additive)
    rows[7] = Observation(rows[7].values, 1e9, rows[7].settings)
    found = by_name(analyse(AXES, rows, seed=1))
    assert found["slope"].share > 0.4
    assert clip_outliers(np.array([1.0, 2.0, 3.0, 4.0, 1e9])).max() < 20
    assert (clip_outliers(np.arange(5.0)) == np.arange(5.0)).all()


def test_trials_of_equal_settings_count_once():
    rows = observed(MIN_SETTINGS, additive)
    again = [Observation(one.values, one.objective + 0.01, one.settings) for one in rows]
    analysis = analyse(AXES, rows + again, seed=1)
    assert (analysis.settings, analysis.trials) == (MIN_SETTINGS, 2 * MIN_SETTINGS)
    assert analyse(AXES, rows[1:] + again[1:]) is None


def test_nothing_is_said_of_nothing():
    assert analyse(AXES, []) is None
    assert analyse((), observed(20, additive)) is None
    assert analyse(AXES, observed(20, lambda _: 0.5)) is None


def test_the_same_trials_and_seed_give_the_same():
    rows = observed(10, additive)
    first, second = analyse(AXES, rows, seed=2), analyse(AXES, rows, seed=2)
    assert [found.share for found in first.spaces] == [found.share for found in second.spaces]
    assert all(math.isfinite(found.chance) for found in first.spaces)
