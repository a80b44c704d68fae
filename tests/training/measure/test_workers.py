from dataclasses import replace

import pytest

from imagetune.data.sources.records import Record
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.training.measure.workers import LoadingSpeeds, Reads, choose_workers, count_reads, measure_loading_speeds

MANY = LoadingSpeeds(core=100, threads=300, cores=16)


def never():
    raise AssertionError("the model was timed although nothing depends on it")


def choose(rates, *, images=1_000_000, kept=0, shared=False, step=never):
    return choose_workers(rates, Reads(images, kept), shared=shared, step=step)


def test_one_core_needs_no_measured_model():
    assert choose(LoadingSpeeds(100, 100, 1)).workers == 0


def test_threads_that_load_as_much_as_processes_would_are_kept():
    choice = choose(LoadingSpeeds(core=400, threads=730, cores=2), shared=True)
    assert (choice.workers, choice.reason) == (0, "threads load 730 images/s here, processes would load no more")


def test_a_short_training_does_not_pay_the_start_of_processes():
    choice = choose(MANY, images=500)
    assert (choice.workers, choice.reason) == (
        0,
        "threads load 300 images/s here, the start of processes would not pay",
    )


def test_threads_that_feed_the_model_are_kept():
    choice = choose(MANY, step=lambda: 1 / 200)
    assert (choice.workers, choice.reason) == (0, "threads load 300 images/s here, the model takes 200")


@pytest.mark.parametrize(("rate", "workers"), [(400, 5), (900, 11), (5000, 16)])
def test_a_fast_model_gets_as_many_processes_as_feed_it(rate, workers):
    choice = choose(MANY, step=lambda: 1 / rate)
    assert choice.workers == workers
    assert choice.reason.startswith(f"threads load 300 images/s here, the model could take {rate}; about ")


def test_on_the_cpu_processes_get_every_core_where_threads_leave_some_idle():
    assert choose(MANY, shared=True, step=lambda: 1 / 5000).workers == 16


def test_on_the_cpu_a_slow_model_leaves_nothing_for_processes_to_save():
    # Threads load 300 a second of one core's worth of three; the model needs all sixteen for 100.
    assert choose(MANY, shared=True, step=lambda: 1 / 100).workers == 0


def test_images_that_are_kept_decoded_leave_less_to_save():
    rates = replace(MANY, kept_share=0.05)
    assert choose(rates, images=500, kept=2000).workers == 0
    assert choose(rates, images=500, kept=1_000_000, step=lambda: 1 / 50_000).workers == 16
    assert choose(rates, images=500, kept=1_000_000, step=lambda: 1 / 5000).workers == 0


def test_stages_that_keep_features_load_images_once_a_copy():
    stages = [
        {"name": "head", "epochs": 20, "learning_rate": 0.01},
        {"name": "top", "unfreeze": "last 1 blocks", "epochs": 5, "learning_rate": 0.01},
    ]
    data = DataConfig(source="images", cache="off")
    assert count_reads(TrainConfig(stages=stages), data, 10) == Reads(10 * (4 + 5), 0, 2)
    assert count_reads(TrainConfig(stages=stages, augmented_copies=2), data, 10) == Reads(10 * (2 + 5), 0, 2)
    assert count_reads(TrainConfig(stages=stages, cache="off"), data, 10) == Reads(10 * (20 + 5), 0, 2)
    assert count_reads(TrainConfig(stages=stages[:1], augmented_copies=50), data, 10) == Reads(10 * 20, 0, 1)


def test_images_that_are_kept_are_decoded_once_a_size():
    stages = [
        {"name": "small", "unfreeze": "all", "epochs": 3, "learning_rate": 0.01, "image_size": 96},
        {"name": "large", "unfreeze": "all", "epochs": 5, "learning_rate": 0.01},
    ]
    data = DataConfig(source="images", image_size=224)
    assert count_reads(TrainConfig(stages=stages), data, 10) == Reads(20, 60, 2)


def test_speeds_are_measured_on_images(images):
    records = [Record(str(path), path.parent.name) for path in images.glob("*/*.png")]
    data = DataConfig(source=str(images), image_size=32)
    found = measure_loading_speeds(records, data, "light")
    assert found.core > 0 and found.threads > 0 and 0 < found.kept_share < 1
    assert measure_loading_speeds(records, data.model_copy(update={"cache": "off"}), "light").kept_share == 1
