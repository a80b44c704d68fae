from dataclasses import replace

import pytest

from imagetune.training.measure.forecast import (
    COMPILE,
    DECODE,
    FEATURES,
    STEP,
    VALIDATION,
    Change,
    Costs,
    StageCosts,
    bottleneck,
    cache_features,
    change_stages,
    choose_advice,
    count_needed_processes,
    forecast,
    rank_changes,
    sum_seconds,
    use_processes,
)

# On one core: 1 ms to read, 5 to decode, 2 to augment; two cores share that as 4 ms an image.
STAGE = StageCosts("all", epochs=10, read=0.001, decode=0.005, augment=0.002, delivery=0.004, step=0.010)
COSTS = Costs((STAGE,), train_images=1000, val_images=100, forward=0.003, cores=2, shared=True)


def on_a_device(**fields):
    return replace(COSTS, shared=False, stages=(replace(STAGE, **fields),))


def test_on_the_cpu_loading_and_the_step_add_up():
    (found,) = forecast(COSTS)
    assert found.images_per_second == pytest.approx(1 / 0.014)
    assert found.epoch_seconds == pytest.approx(14 + 100 * (0.003 + 0.003))
    assert found.seconds == pytest.approx(10 * found.epoch_seconds)
    assert found.waits_for == "step"
    assert bottleneck([found]) == (STEP, pytest.approx(100 / 146))


def test_on_a_device_the_slower_of_loading_and_step_sets_the_pace():
    (slow_step,) = forecast(on_a_device())
    assert (slow_step.images_per_second, slow_step.waits_for) == (pytest.approx(100), "step")
    assert DECODE not in slow_step.pieces
    (slow_loading,) = forecast(on_a_device(step=0.001))
    assert (slow_loading.images_per_second, slow_loading.waits_for) == (pytest.approx(250), "loading")
    assert STEP not in slow_loading.pieces
    assert bottleneck([slow_loading])[0] == DECODE


def test_a_pipeline_with_too_few_processes_sets_the_pace_on_the_cpu_too():
    (found,) = forecast(replace(COSTS, stages=(replace(STAGE, delivery=0.02),)))
    assert (found.images_per_second, found.waits_for) == (pytest.approx(50), "loading")


def test_pieces_sum_up_to_the_stage_with_what_comes_once():
    stage = replace(STAGE, compile_seconds=5.0, start_seconds=2.0, transfer=0.001, prepare=0.001)
    (found,) = forecast(replace(COSTS, stages=(stage,)))
    assert sum(found.pieces.values()) == pytest.approx(found.seconds)
    assert found.seconds - forecast(COSTS)[0].seconds == pytest.approx(5 + 2 + 10 * 1000 * 0.002 + 10 * 100 * 0.001)
    assert found.pieces[COMPILE] == 5


def test_images_kept_decoded_are_decoded_in_the_first_epoch_only():
    (found,) = forecast(replace(COSTS, stages=(replace(STAGE, decoded=True),)))
    first = 1000 * 0.005 / 2
    assert first < found.pieces[DECODE] < 1.5 * first
    kept = replace(on_a_device(step=0.0001, decoded=True, first_pass=False).stages[0], kept_delivery=0.0005)
    assert forecast(replace(COSTS, shared=False, stages=(kept,)))[0].images_per_second == pytest.approx(2000)
    later = replace(STAGE, decoded=True, first_pass=False)
    assert forecast(replace(COSTS, stages=(later,)))[0].pieces[DECODE] < 0.5 * first


def test_a_stage_that_keeps_features_passes_the_frozen_layers_once_a_copy():
    stage = replace(STAGE, frozen=0.009, cached_step=0.0001, copies=2)
    (found,) = forecast(replace(COSTS, stages=(stage,)))
    assert found.pieces[FEATURES] == pytest.approx(2 * 1000 * 0.009 + 100 * (0.009 + 0.003))
    assert found.pieces[STEP] == pytest.approx(10 * 1000 * 0.0001)
    assert found.pieces[VALIDATION] == pytest.approx(10 * 100 * 0.0001)
    assert found.epoch_seconds == pytest.approx(0.11)


def test_features_by_difference_leave_the_step_without_its_frozen_part():
    found = cache_features(replace(STAGE, frozen=0.006), 4)
    assert (found.cached_step, found.copies) == (pytest.approx(0.004), 4)
    noisy = cache_features(replace(STAGE, frozen=0.011, epochs=3), 4)
    assert (noisy.cached_step, noisy.copies) == (pytest.approx(0.0003), 3)


def test_needed_processes_are_as_many_as_feed_the_step_and_no_more_than_cores():
    assert count_needed_processes(STAGE, cores=8) == 1
    assert count_needed_processes(replace(STAGE, step=0.002), cores=8) == 5
    assert count_needed_processes(replace(STAGE, step=0.0001), cores=8) == 8


def test_the_most_saving_change_that_keeps_the_result_is_advised():
    costs = on_a_device(step=0.001)
    smaller = change_stages(costs, lambda stage: replace(stage, delivery=0.002))
    ranked = rank_changes(
        costs,
        [
            Change("data.workers", 2, use_processes(costs, 2, 1.0), True, "processes"),
            Change("data.image_size", 96, smaller, False, "smaller"),
            Change(
                "data.cache",
                "auto",
                change_stages(costs, lambda stage: replace(stage, decoded=True)),
                True,
                "kept",
            ),
            Change("train.batch_size", 64, change_stages(costs, lambda stage: replace(stage, step=0.002)), False, "no"),
        ],
    )
    assert [advice.setting for advice in ranked] == ["data.cache", "data.image_size"]
    best = choose_advice(ranked)
    assert best is not None and best.setting == "data.cache"
    assert best.saves_seconds == pytest.approx(sum_seconds(costs) * best.share)
    assert choose_advice(ranked[1:]).setting == "data.image_size"


def test_nothing_is_advised_where_nothing_saves_much():
    little = Change("data.cache", "auto", replace(COSTS, forward=0.0025), True, "a little")
    assert [advice.setting for advice in rank_changes(COSTS, [little])] == ["data.cache"]
    assert choose_advice(rank_changes(COSTS, [little])) is None
