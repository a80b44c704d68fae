import time

import pytest

from imagetune.data.loading.pipeline import load_training_batches
from imagetune.data.loading.timing import (
    PASSES,
    Timing,
    format_transform_name,
    measure_thread_throughput,
    sample_evenly,
    time_each,
    time_loading,
    time_pipeline,
)
from imagetune.data.sources.records import Record
from imagetune.errors import BadImageError
from imagetune.recipe.sections.data import ImageSettings

IMAGE = ImageSettings(height=48, width=48)
SLOW_FIRST = [{"GaussianBlur": {"blur_limit": [31, 31], "p": 1.0}}, {"HorizontalFlip": {"p": 0.5}}]


@pytest.fixture
def records(images):
    return [Record(str(path), path.parent.name) for path in sorted(images.glob("*/*.png"))]


def test_a_timing_has_its_median_and_its_spread():
    timing = Timing((0.3, 0.1, 0.2))
    assert (timing.seconds, timing.min_seconds, timing.max_seconds, timing.images_per_second) == (
        0.2,
        0.1,
        0.3,
        pytest.approx(5),
    )


def test_each_item_is_worked_on_in_every_round_after_a_first_call_that_does_not_count():
    calls = []

    def work(item):
        time.sleep(0.02 if not calls else 0.002)
        calls.append(item)

    timing = time_each(work, ["a", "b"], seconds=1.0)
    assert calls == ["a", *["a", "b"] * PASSES]
    assert len(timing.rounds) == PASSES
    assert 0.002 <= timing.seconds < 0.015


def test_slow_work_is_done_on_fewer_items():
    calls = []
    time_each(lambda item: (calls.append(item), time.sleep(0.01)), list(range(100)), seconds=0.1)
    assert 1 + PASSES <= len(calls) <= 1 + 4 * PASSES


def test_a_sample_comes_from_everywhere(records):
    assert sample_evenly(records, 3) == [records[0], records[10], records[20]]
    assert sample_evenly(records, 1000) == records


def test_loading_is_reported_in_pieces_and_by_transform(records):
    times = time_loading(records, IMAGE, SLOW_FIRST, max_pixels=10**7)
    assert [name for name, _ in times.transforms] == ["GaussianBlur", "HorizontalFlip"]
    blur, flip = (timing.seconds for _, timing in times.transforms)
    assert blur > flip > 0
    assert times.read.seconds > 0 and times.decode.seconds > 0
    assert times.seconds == pytest.approx(times.read.seconds + times.decode.seconds + times.augment.seconds)


def test_without_augmentation_there_is_nothing_to_augment(records):
    times = time_loading(records[:2], IMAGE, "none", max_pixels=10**7)
    assert (times.augment, times.augment_seconds, times.transforms) == (None, 0.0, ())


def test_a_choice_is_named_with_what_it_chooses_from():
    entry = {"OneOf": {"transforms": [{"Blur": {}}, {"GaussNoise": None}, {"Blur": {"p": 1.0}}], "p": 0.3}}
    assert format_transform_name(entry) == "OneOf (Blur, GaussNoise)"
    assert format_transform_name({"HorizontalFlip": None}) == "HorizontalFlip"


def test_threads_load_images_and_a_vanished_one_is_named(records, tmp_path):
    assert measure_thread_throughput(records[:4], IMAGE, "light", max_pixels=10**7, threads=2) > 0
    with pytest.raises(BadImageError) as caught:
        measure_thread_throughput([Record(str(tmp_path / "gone.png"), "a")], IMAGE, "none", max_pixels=10**7, threads=2)
    assert "gone.png" in caught.value.where


def test_a_pipeline_is_timed_after_its_buffers_and_closed(records):
    names = sorted({record.label for record in records})
    batches = load_training_batches(
        records,
        names,
        image=IMAGE,
        augmentation="light",
        batch_size=8,
        seed=1,
        epochs=1000,
        workers=0,
        max_pixels=10**7,
    )
    times = time_pipeline(batches, buffered=3, seconds=0.1)
    assert 0 < times.each.min_seconds <= times.each.seconds <= times.each.max_seconds
    assert times.start_seconds > 0
    assert next(batches, None) is None
