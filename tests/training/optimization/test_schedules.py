import keras
import numpy as np
import pytest

from imagetune.recipe.sections.train import ScheduleConfig
from imagetune.training.optimization.schedules import PlateauLearningRate, StageSchedule

NAMES = (
    "cosine",
    "one_cycle",
    "linear",
    "polynomial",
    "exponential",
    "step",
    "inverse_sqrt",
    "constant",
    "plateau",
)
FALLING = ("cosine", "linear", "polynomial", "exponential", "one_cycle")


def schedule(name, *, epochs=10, steps_per_epoch=10, first_step=0, **shape):
    config = ScheduleConfig(name=name, **shape)
    return StageSchedule(0.1, config, steps_per_epoch=steps_per_epoch, epochs=epochs, first_step=first_step)


def rates_of(*arguments, **keywords):
    rates = schedule(*arguments, **keywords)
    return np.array([rates.rate_at(step) for step in range(101)])


def seen_by_the_optimizer(rates, step):
    return float(keras.ops.convert_to_numpy(rates(step)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps_per_epoch", [10, 7.5])
@pytest.mark.parametrize("warmup_epochs", [0.0, 1.5])
def test_the_optimizer_sees_the_learning_rate_that_is_reported(name, steps_per_epoch, warmup_epochs):
    rates = schedule(name, steps_per_epoch=steps_per_epoch, warmup_epochs=warmup_epochs, first_step=1000)
    for step in (0, 1, 3, 15, 16, 29, 30, 31, 45, 74, 75, 99, 500):
        assert seen_by_the_optimizer(rates, 1000 + step) == pytest.approx(rates.rate_at(step), rel=1e-4), step


def test_the_step_may_be_the_optimizers_own_count():
    rates = schedule("cosine", first_step=40)
    count = keras.Variable(52, dtype="int64", trainable=False)
    assert seen_by_the_optimizer(rates, count) == pytest.approx(rates.rate_at(12), rel=1e-5)


def test_accumulated_passes_are_one_step_as_keras_counts_them():
    config = ScheduleConfig(name="linear", warmup_epochs=0.0)
    schedule = StageSchedule(1.0, config, steps_per_epoch=10, epochs=1, first_step=2, accumulation=3)
    optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=3)
    weight = keras.Variable([10.0])
    optimizer.build([weight])
    optimizer.variables[0].assign(6)
    moved = []
    for _ in range(9):
        before = float(keras.ops.convert_to_numpy(weight)[0])
        optimizer.apply([keras.ops.ones((1,))], [weight])
        moved.append(before - float(keras.ops.convert_to_numpy(weight)[0]))
    steps = [schedule.rate_at(step) for step in range(3)]
    assert moved == pytest.approx([0, 0, steps[0], 0, 0, steps[1], 0, 0, steps[2]], abs=1e-5)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "one_cycle"])
def test_the_learning_rate_rises_evenly_to_its_peak_and_never_again(name):
    rates = rates_of(name, warmup_epochs=1.0)
    assert rates.max() == rates[10]
    assert rates[:11] == pytest.approx(0.1 * np.arange(1, 12) / 11)
    assert (np.diff(rates[10:]) <= 1e-12).all()


@pytest.mark.parametrize("name", FALLING)
@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 3.0])
def test_the_learning_rate_ends_at_the_final_fraction_and_stays_there(name, warmup_epochs):
    rates = schedule(name, warmup_epochs=warmup_epochs, final_fraction=0.02)
    assert rates.rate_at(100) == pytest.approx(0.002)
    assert rates.rate_at(1000) == pytest.approx(0.002)
    assert max(rates.rate_at(step) for step in range(100)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("name", "shape", "share"),
    [
        ("cosine", {}, 0.01 + 0.99 / 2),
        ("linear", {}, 0.01 + 0.99 / 2),
        ("polynomial", {"power": 3.0}, 0.01 + 0.99 / 8),
        ("exponential", {}, 0.1),
        ("constant", {}, 1.0),
        ("plateau", {}, 1.0),
    ],
)
def test_the_middle_between_warmup_and_end_has_its_share_of_the_peak(name, shape, share):
    assert schedule(name, warmup_epochs=2.0, final_fraction=0.01, **shape).rate_at(60) == pytest.approx(0.1 * share)


def test_one_cycle_rises_from_a_25th_and_needs_no_other_warmup():
    rates = rates_of("one_cycle", rise_fraction=0.4, final_fraction=0.01, warmup_epochs=5.0)
    assert rates[0] == pytest.approx(0.1 / 25)
    assert rates[20] == pytest.approx(0.1 * (1 / 25 + 1) / 2)
    assert rates[40] == rates.max() == pytest.approx(0.1)
    assert (np.diff(rates[:41]) > 0).all()
    assert (np.diff(rates[40:]) < 0).all()


def test_step_falls_by_its_factor_after_so_many_epochs():
    rates = rates_of("step", step_epochs=2.5, factor=0.5, warmup_epochs=0.0)
    assert rates[[0, 24, 25, 49, 50, 75, 99]] == pytest.approx([0.1, 0.1, 0.05, 0.05, 0.025, 0.0125, 0.0125])


def test_inverse_sqrt_halves_at_four_times_the_warmup():
    rates = rates_of("inverse_sqrt", warmup_epochs=1.0)
    assert rates[40] == pytest.approx(0.05)
    assert rates_of("inverse_sqrt", warmup_epochs=0.0)[3] == pytest.approx(0.05)


def test_warmup_never_takes_more_than_half_of_a_stage():
    assert schedule("cosine", epochs=1, warmup_epochs=5.0).rate_at(5) == pytest.approx(0.1)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_of_one_step_has_a_rate(name):
    rate = schedule(name, epochs=1, steps_per_epoch=1).rate_at(0)
    assert 0.0 < rate <= 0.1


def plateau(**shape):
    return PlateauLearningRate(schedule("plateau", **shape))


def run_epochs(rates, improvements):
    """Return the learning rate at the end of each epoch of ten steps, multiplied up as an optimizer does."""
    rate, seen = 0.1, []
    for epoch, improved in enumerate(improvements):
        for step in range(10):
            rate *= rates.before_step(epoch * 10 + step)
        seen.append(rate)
        rates.after_epoch(improved=improved)
    return seen


def test_plateau_lowers_the_learning_rate_after_its_patience_and_never_under_the_floor():
    rates = plateau(factor=0.5, patience=1, final_fraction=0.2, warmup_epochs=0.0)
    seen = run_epochs(rates, (True, False, False, True, False, False, False, False, False))
    assert seen == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025, 0.025, 0.025])
    assert rates.learning_rate == pytest.approx(0.025)


def test_plateau_rises_during_its_warmup():
    assert 0.1 * plateau(warmup_epochs=2.0).before_step(0) == pytest.approx(0.1 / 21)
    seen = run_epochs(plateau(warmup_epochs=2.0), (True, True, True))
    assert seen == pytest.approx([0.1 * 10 / 21, 0.1 * 20 / 21, 0.1])


def test_epochs_of_the_warmup_are_not_stalled():
    rates = plateau(warmup_epochs=3.0, patience=0, factor=0.5)
    seen = run_epochs(rates, (False, False, False, False, False))
    assert seen[3] == pytest.approx(0.1 * 0.5)
