import keras
import numpy as np
import pytest

from imagetune.recipe.train import ScheduleConfig
from imagetune.training.schedules import PlateauRate, StageSchedule


def schedule(epochs=10, steps_per_epoch=10, **shape):
    return StageSchedule(0.1, ScheduleConfig(**shape), steps_per_epoch=steps_per_epoch, epochs=epochs)


def test_the_rate_rises_during_warmup_and_falls_along_a_cosine():
    rates = [schedule(name="cosine", warmup_epochs=1.0, final_fraction=0.01).rate_at(step) for step in range(101)]
    assert rates[0] == pytest.approx(0.1 / 11)
    assert np.argmax(rates) == 10
    assert rates[10] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.1 * (0.01 + 0.99 / 2))
    assert rates[100] == pytest.approx(0.001)


def test_exponential_ends_at_the_final_fraction():
    rates = schedule(name="exponential", warmup_epochs=0.0, final_fraction=0.01)
    assert rates.rate_at(0) == pytest.approx(0.1)
    assert rates.rate_at(50) == pytest.approx(0.01)
    assert rates.rate_at(100) == pytest.approx(0.001)


def test_constant_stays():
    rates = schedule(name="constant", warmup_epochs=0.0)
    assert [rates.rate_at(step) for step in (0, 50, 1000)] == pytest.approx([0.1] * 3)


def test_warmup_never_takes_more_than_half_of_a_stage():
    assert schedule(epochs=1, name="cosine", warmup_epochs=5.0).rate_at(5) == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["cosine", "constant", "exponential"])
def test_the_optimizer_sees_the_rate_that_is_reported(name):
    rates = schedule(name=name)
    for step in (0, 3, 40, 99):
        assert float(keras.ops.convert_to_numpy(rates(step))) == pytest.approx(rates.rate_at(step), rel=1e-5)


def test_plateau_lowers_the_rate_after_its_patience_and_never_under_the_floor():
    config = ScheduleConfig(name="plateau", factor=0.5, patience=1, final_fraction=0.2)
    plateau = PlateauRate(config, 0.1)
    factors = [plateau.after_epoch(improved=improved) for improved in (True, False, False, True, False, False, False)]
    assert factors == [1.0, 1.0, 0.5, 1.0, 1.0, 0.5, 1.0]
    assert plateau.rate == pytest.approx(0.025)
    assert plateau.after_epoch(improved=False) == 1.0
