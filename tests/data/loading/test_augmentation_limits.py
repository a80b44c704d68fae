import time

import pytest

from imagetune.data.loading.augmentation import find_augmentation_problems


@pytest.mark.parametrize(
    ("entry", "limit"),
    [
        ({"Resize": {"height": 1_000_000, "width": 1_000_000}}, "4,096"),
        ({"GlassBlur": {"iterations": 100_000}}, "20"),
        ({"RandomScale": {"scale_limit": [0, 10_000.0]}}, "10"),
        ({"GaussianBlur": {"blur_limit": 1_000_001}}, "500"),
        ({"RandomBrightnessContrast": {"brightness_limit": float("nan")}}, "20,000"),
    ],
)
def test_a_number_that_would_take_all_memory_is_refused_before_it_is_tried(entry, limit):
    began = time.perf_counter()
    problems = find_augmentation_problems([entry])
    assert problems
    assert all(f"to {limit}" in problem.what for problem in problems)
    assert time.perf_counter() - began < 2


def test_more_transforms_than_can_be_tried_are_refused():
    (problem,) = find_augmentation_problems([{"HorizontalFlip": {"p": 0.5}}] * 51)
    assert problem.what == "has 51 transforms, and the most is 50"
