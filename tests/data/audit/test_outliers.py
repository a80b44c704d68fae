from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from imagetune.data.audit.appearance import measure_appearance
from imagetune.data.audit.image_statistics import ImageStatistics, Inspection
from imagetune.data.audit.inspection import inspect_image
from imagetune.data.audit.outliers import find_outlier_images, find_placeholders
from imagetune.data.duplicates.perceptual import shrink_image

SHIPPED = sorted((Path(__file__).parents[3] / "recipes" / "clipart").glob("*/*.png"))


def statistics_of(name: str, image: np.ndarray) -> ImageStatistics:
    height, width = image.shape[:2]
    return ImageStatistics(
        name, name, 1000, width, height, None, None, appearance=measure_appearance(shrink_image(image))
    )


def photographs(count: int) -> list[np.ndarray]:
    """Cuts of two photographs that come with scikit-learn, each of its own place and size."""
    rng = np.random.default_rng(0)
    whole = load_sample_images().images
    cuts = []
    for number in range(count):
        image = whole[number % len(whole)]
        width = int(rng.integers(200, 400))
        height = width * 3 // 4
        top, left = rng.integers(image.shape[0] - height), rng.integers(image.shape[1] - width)
        cuts.append(np.ascontiguousarray(image[top : top + height, left : left + width]))
    return cuts


def shipped(count: int) -> list[np.ndarray]:
    """Drawings on white."""
    drawings = []
    for path in SHIPPED[:: len(SHIPPED) // count]:
        loaded = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if loaded.ndim == 2 or loaded.shape[2] == 3:
            drawings.append(cv2.cvtColor(loaded, cv2.COLOR_GRAY2RGB) if loaded.ndim == 2 else loaded[:, :, ::-1])
            continue
        alpha = loaded[:, :, 3:] / 255
        drawings.append(np.ascontiguousarray((loaded[:, :, 2::-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)))
    return drawings


def reported(images: list[np.ndarray]) -> defaultdict[str, set[str]]:
    statistics = [statistics_of(str(number), image) for number, image in enumerate(images)]
    found = {finding.code: set(finding.paths) for finding in find_outlier_images(statistics)}
    return defaultdict(set, found)


SPOILT = {
    "blank-image": lambda image: np.full_like(image, 200),
    "too-dark": lambda image: (image * 0.08).astype(np.uint8),
    "too-bright": lambda image: (255 - (255 - image.astype(int)) * 0.08).astype(np.uint8),
    "blurred": lambda image: cv2.GaussianBlur(image, (0, 0), 0.03 * max(image.shape)),
    "odd-size": lambda image: cv2.resize(image, (24, 18), interpolation=cv2.INTER_AREA),
    "odd-aspect": lambda image: cv2.resize(image, (600, 70), interpolation=cv2.INTER_AREA),
}


@pytest.mark.parametrize("source", [photographs, shipped])
@pytest.mark.parametrize("code", SPOILT)
def test_spoilt_images_are_found_and_no_others(source, code):
    images = source(100)
    before = reported(images)
    spoilt = range(0, 100, 10)
    for number in spoilt:
        images[number] = SPOILT[code](images[number])
    found = reported(images)
    # A drawing in pale colours has nothing left in the dark.
    assert {str(number) for number in spoilt} <= found[code] | found["blank-image"]
    assert len(found[code]) >= 0.9 * len(spoilt)
    assert not found[code] - {str(number) for number in spoilt} - before[code]


@pytest.mark.parametrize("source", [photographs, shipped])
def test_hardly_a_clean_image_is_reported(source):
    found = reported(source(400))
    assert len(set().union(*found.values())) <= 4, found


def test_what_a_whole_set_is_like_is_not_odd():
    for spoil in ("too-dark", "too-bright", "blurred", "odd-size", "odd-aspect"):
        assert spoil not in reported([SPOILT[spoil](image) for image in photographs(40)])


def test_a_blank_image_is_not_blurred_as_well():
    images = [*photographs(30), np.zeros((60, 80, 3), np.uint8)]
    assert reported(images) == {"blank-image": {"30"}}


def test_a_handful_of_images_has_no_usual_one():
    few = photographs(4)
    few[0] = SPOILT["too-dark"](few[0])
    few[1] = np.zeros_like(few[1])
    assert reported(few) == {"blank-image": {"1"}}


def test_bad_images_are_passed_over():
    assert (
        list(find_outlier_images([replace(statistics_of("a", photographs(1)[0]), error="bad", appearance=None)])) == []
    )


def drawn(text: str, size: int) -> np.ndarray:
    image = np.full((160, 160, 3), 255, np.uint8)
    cv2.rectangle(image, (20, 20), (140, 140), (200, 0, 0), 2)
    cv2.putText(image, text, (28, 90), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 0, 0), 2)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)


def inspected(folder: Path, images: dict[str, np.ndarray]) -> list[Inspection]:
    found = []
    for name, image in images.items():
        path = folder / f"{name}.png"
        cv2.imwrite(str(path), image[:, :, ::-1])
        found.append(inspect_image(str(path), background=(255, 255, 255), max_pixels=10**7, descriptors=True))
    return found


@pytest.mark.parametrize(
    ("names", "stand_in"),
    [
        (("heron", "swallow"), True),
        (("heron_1", "heron_2"), False),
        (("0001", "0417"), False),
        (("0001", "0417", "0933"), True),
    ],
)
def test_one_drawing_under_unrelated_names_is_a_placeholder(tmp_path, names, stand_in):
    inspections = inspected(tmp_path, {name: drawn("missing", 160 - 10 * place) for place, name in enumerate(names)})
    found = list(find_placeholders(inspections, [list(range(len(names)))]))
    assert [finding.code for finding in found] == ["placeholder"] * stand_in
    if stand_in:
        assert set(found[0].paths) == {one.statistics.path for one in inspections}


def test_copies_of_a_photograph_are_no_placeholders(tmp_path):
    image = photographs(1)[0]
    inspections = inspected(tmp_path, {"heron": image, "swallow": image})
    assert list(find_placeholders(inspections, [[0, 1]])) == []


def test_a_recoloured_drawing_is_no_placeholder(tmp_path):
    plain = drawn("heron", 160)
    inspections = inspected(tmp_path, {"heron": plain, "swallow": (plain * 0.6).astype(np.uint8)})
    assert list(find_placeholders(inspections, [[0, 1]])) == []
