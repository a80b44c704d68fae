import re
import warnings

import numpy as np
import pytest

from imagetune.recipe.sections.train import StageConfig, TrainConfig
from imagetune.reports.plots.lr_schedule import compute_stage_learning_rates, draw_schedule
from imagetune.training.optimization.schedules import StageSchedule


def stage(schedule, *, name="head", rate=1e-3, epochs=4, **shape):
    return StageConfig(name=name, epochs=epochs, learning_rate=rate, schedule={"name": schedule, **shape})


def train(stages, **values):
    return TrainConfig(stages=tuple(stages), **values)


def lines(config, *, peak=1e-3, start=0, steps=10, epochs=None, first_epoch=1):
    """Lines of metrics.jsonl as training writes them."""
    rates = StageSchedule(peak, config.schedule, steps_per_epoch=steps, epochs=config.epochs)
    return [
        {
            "stage": config.name,
            "epoch": first_epoch + epoch,
            "step": start + (epoch + 1) * steps,
            "learning_rate": rates.rate_at((epoch + 1) * steps - 1),
        }
        for epoch in range(epochs or config.epochs)
    ]


def texts(svg):
    return {re.sub("<[^>]+>", "", found).strip() for found in re.findall(r"<text.*?</text>", svg, re.DOTALL)}


@pytest.mark.parametrize("name", ["cosine", "one_cycle", "step", "inverse_sqrt"])
def test_every_step_has_the_rate_of_its_schedule(name):
    config = stage(name, warmup_epochs=1.0)
    rates = StageSchedule(1e-3, config.schedule, steps_per_epoch=10, epochs=4)
    (drawn,) = compute_stage_learning_rates(train([config]), lines(config))
    assert drawn.steps.tolist() == list(range(40))
    assert drawn.rates == pytest.approx([rates.rate_at(step) for step in range(40)])
    assert drawn.warmup_end == (0 if name == "one_cycle" else 10)


def test_stages_follow_each_other_and_one_that_never_ran_is_left_out():
    stages = [stage("cosine"), stage("linear", name="top", rate=1e-4), stage("constant", name="rest")]
    ran = lines(stages[0]) + lines(stages[1], peak=1e-4, start=40, epochs=2, first_epoch=5)
    first, second = compute_stage_learning_rates(train(stages), ran)
    assert (first.name, first.start, first.end) == ("head", 0, 40)
    assert (second.name, second.start, second.end) == ("top", 40, 60)
    assert second.rates.max() == pytest.approx(1e-4, rel=0.02)
    assert second.rates[-1] == pytest.approx(ran[-1]["learning_rate"])


def test_a_measured_rate_is_taken_from_what_was_recorded():
    (drawn,) = compute_stage_learning_rates(train([stage("cosine", rate="auto")]), lines(stage("cosine"), peak=0.02))
    assert drawn.rates.max() == pytest.approx(0.02)


def test_the_falls_of_plateau_are_those_that_were_recorded():
    config = stage("plateau", warmup_epochs=0.5)
    ran = [{**line, "learning_rate": rate} for line, rate in zip(lines(config), (1e-3, 1e-3, 5e-4, 5e-4), strict=True)]
    (drawn,) = compute_stage_learning_rates(train([config]), ran)
    at = dict(zip(drawn.steps.tolist(), drawn.rates, strict=True))
    assert [at[step] for step in (9, 19, 20, 39)] == pytest.approx([1e-3, 1e-3, 5e-4, 5e-4])
    assert at[0] == pytest.approx(1e-3 / 6)


def test_accumulated_passes_are_one_step():
    config = stage("linear", warmup_epochs=1.0)
    ran = [{**line, "step": 2 * line["step"]} for line in lines(config)]
    (drawn,) = compute_stage_learning_rates(train([config], batch_size=8, effective_batch=16), ran)
    rates = StageSchedule(1e-3, config.schedule, steps_per_epoch=10, epochs=4)
    assert drawn.rates[::2] == pytest.approx([rates.rate_at(step) for step in range(40)])
    assert (drawn.end, drawn.warmup_end) == (40, 10)


def test_very_many_steps_are_thinned_and_every_epoch_kept():
    config = stage("constant", epochs=3)
    (drawn,) = compute_stage_learning_rates(train([config]), lines(config, steps=50_000))
    assert len(drawn.steps) < 500
    assert {49_999, 50_000, 99_999, 100_000, 149_999} <= set(drawn.steps.tolist())


def test_lines_without_a_rate_or_of_another_recipe_draw_nothing():
    config = stage("cosine")
    assert compute_stage_learning_rates(train([config]), []) == ()
    assert (
        compute_stage_learning_rates(train([config]), [{"stage": "other", "epoch": 1, "step": 5, "learning_rate": 1.0}])
        == ()
    )
    assert (
        compute_stage_learning_rates(train([config]), [{"stage": "head", "epoch": 1, "step": 5, "learning_rate": None}])
        == ()
    )


def test_warmup_stages_and_scale_are_named():
    stages = [stage("cosine"), stage("cosine", name="top", rate=1e-5)]
    ran = lines(stages[0]) + lines(stages[1], peak=1e-5, start=40, first_epoch=5)
    found = texts(draw_schedule(compute_stage_learning_rates(train(stages), ran)).svg)
    assert {"warmup", "head", "top", "Learning rate of the head (log scale)"} <= found
    alone = texts(
        draw_schedule(compute_stage_learning_rates(train(stages[:1]), lines(stages[0], steps=1, epochs=1))).svg
    )
    assert "Learning rate of the head" in alone


def test_a_single_step_can_be_drawn():
    config = stage("one_cycle", epochs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rates = compute_stage_learning_rates(train([config]), lines(config, steps=1))
        draw_schedule(rates)
    assert np.isfinite(rates[0].rates).all()
