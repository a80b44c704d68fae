from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from PIL import Image
from planted import NEAR, scene
from sklearn.datasets import load_digits

from imagetune.data.duplicates import lsh_index
from imagetune.data.duplicates.groups import DisjointSets, find_components, find_equal_pairs, list_group_members
from imagetune.data.duplicates.lsh_index import ORIENTATIONS, LshIndex
from imagetune.data.duplicates.perceptual import (
    _DESCRIPTOR,
    _compute_frequencies,
    compute_perceptual_hash,
    find_near_duplicate_pairs,
)


def photo(seed: int, side: int = 240) -> np.ndarray:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8))
    return np.asarray(coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC))


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(list(find_near_duplicate_pairs([compute_perceptual_hash(one)[1], compute_perceptual_hash(other)[1]])))


def found_again(images: list[np.ndarray], changed: list[np.ndarray]) -> float:
    """The share of changed images that are in one group with their original, all of them looked at together."""
    descriptors = [compute_perceptual_hash(image)[1] for image in [*images, *changed]]
    roots = find_components(len(descriptors), find_near_duplicate_pairs(descriptors))
    return float(np.mean([roots[at] == roots[at + len(images)] for at in range(len(images))]))


def changed(image: np.ndarray, how: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    match how:
        case "jpeg":
            return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR_BGR)
        case "half":
            return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        case "brighter":
            return np.clip(image * 1.1 + 5, 0, 255).astype(np.uint8)
        case "noisy":
            return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)
        case "squeezed":
            return cv2.resize(image, (160, 160), interpolation=cv2.INTER_AREA)
    return np.pad(image, ((20, 20), (30, 30), (0, 0)), constant_values=255)


@pytest.mark.parametrize("how", ["jpeg", "half", "brighter", "noisy", "squeezed", "framed"])
def test_a_changed_copy_is_recognised(how: str) -> None:
    images = [photo(seed) for seed in range(20)]
    assert found_again(images, [changed(image, how) for image in images]) >= 0.95


@pytest.mark.parametrize("how", NEAR)
def test_copies_of_photographs_are_recognised(how: str) -> None:
    rng = np.random.default_rng(1)
    images = [scene(seed) for seed in range(40)]
    assert found_again(images, [NEAR[how](image, rng) for image in images]) >= 0.95


@pytest.mark.parametrize("orientation", range(8))
def test_all_eight_orientations_are_recognised_though_cropped(orientation: int) -> None:
    rng = np.random.default_rng(orientation)
    images = [scene(100 + seed) for seed in range(12)]
    turned = [np.rot90(NEAR["cropped"](image, rng), orientation % 4) for image in images]
    turned = [np.ascontiguousarray(image[:, ::-1] if orientation >= 4 else image) for image in turned]
    assert found_again(images, turned) >= 0.9


def test_different_images_are_not_alike() -> None:
    assert not list(find_near_duplicate_pairs([compute_perceptual_hash(photo(seed))[1] for seed in range(300)]))
    assert not list(find_near_duplicate_pairs([compute_perceptual_hash(scene(seed))[1] for seed in range(40)]))


@pytest.mark.slow
def test_small_digits_are_no_duplicate_group() -> None:
    # 8 x 8 pixels of one kind of thing: what resembles many others is no copy, and chains of it stay short.
    digits = (load_digits().images[:400] * 15.9).astype(np.uint8)
    descriptors = [
        compute_perceptual_hash(cv2.resize(np.dstack([digit] * 3), (64, 64), interpolation=cv2.INTER_CUBIC))[1]
        for digit in digits
    ]
    assert np.bincount(find_components(len(descriptors), find_near_duplicate_pairs(descriptors))).max() <= 32


def test_plain_images_have_no_hash() -> None:
    assert compute_perceptual_hash(np.full((40, 40, 3), 200, np.uint8)) == (None, b"")
    assert compute_perceptual_hash(np.zeros((1, 1, 3), np.uint8)) == (None, b"")


def flag(*shades: int) -> np.ndarray:
    return np.repeat(np.repeat(np.array(shades, np.uint8), 30)[:, None, None], 160, axis=1).repeat(3, axis=2)


def test_plain_images_are_alike_in_their_own_colours_only() -> None:
    assert not alike(flag(40, 200, 90), flag(200, 40, 160))
    assert not alike(flag(40, 200, 90), flag(60, 220, 110))
    assert alike(flag(40, 200, 90), changed(flag(40, 200, 90), "half"))
    assert alike(flag(40, 200, 90), flag(40, 200, 90)[::-1].copy())


def test_turning_frequencies_is_turning_the_image() -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (5, 32, 32)).astype(np.uint8)
    for orientation in ORIENTATIONS:
        turned = np.ascontiguousarray(orientation.orient_pixels(grey))
        np.testing.assert_allclose(
            orientation.orient_frequencies(_compute_frequencies(grey)), _compute_frequencies(turned), atol=1e-5
        )


@pytest.mark.parametrize("all_pairs", [0, 4096], ids=["look-ups", "products"])
def test_the_index_brings_close_descriptors_together(all_pairs: int, monkeypatch) -> None:
    monkeypatch.setattr(lsh_index, "ALL_PAIRS", all_pairs)
    rng = np.random.default_rng(3)
    clean = rng.normal(size=(300, 8, 8)).astype(np.float32)
    noisy = clean + rng.normal(0, 0.2, clean.shape).astype(np.float32)
    frequencies = np.concatenate([clean, noisy])
    frequencies[:, 0, 0] = 0
    frequencies /= np.linalg.norm(frequencies, axis=(1, 2), keepdims=True)
    alone = np.arange(len(frequencies))
    met = {
        (min(pair), max(pair))
        for first, second in LshIndex(frequencies, min_cosine=0.75).candidates(ORIENTATIONS[0], alone)
        for pair in zip(first.tolist(), second.tolist(), strict=True)
    }
    assert sum((at, at + 300) in met for at in range(300)) >= 297
    # Of all pairs it looks at few.
    assert len(met) < 0.1 * len(frequencies) ** 2 / 2


def films(scenes: int, frames: int, seed: int = 0) -> list[bytes]:
    """Return the looks of scenes whose frames differ by noise."""
    rng = np.random.default_rng(seed)
    descriptors = []
    for number in range(scenes):
        first = np.frombuffer(compute_perceptual_hash(photo(1000 * seed + number))[1], _DESCRIPTOR)
        for _ in range(frames):
            frame = first.copy()
            frame["grey"] = np.clip(frame["grey"] + rng.normal(0, 1, frame["grey"].shape), 0, 255)
            descriptors.append(frame.tobytes())
    return descriptors


def test_pairs_connect_what_looks_alike_and_nothing_else() -> None:
    descriptors = films(12, 9)
    pairs = list(find_near_duplicate_pairs(descriptors))
    assert find_components(len(descriptors), pairs) == [at // 9 * 9 for at in range(len(descriptors))]
    assert len(pairs) == 12 * 8


def test_a_long_film_takes_seconds() -> None:
    descriptors = films(2, 1000)
    started = time.process_time()
    assert len(list(find_near_duplicate_pairs(descriptors))) == len(descriptors) - 2
    assert time.process_time() - started < 20


@pytest.mark.slow
def test_ten_thousand_different_descriptors_take_seconds() -> None:
    rng = np.random.default_rng(0)
    descriptors = np.zeros(10_000, _DESCRIPTOR)
    descriptors["grey"] = np.stack(
        [
            cv2.resize(coarse, (32, 32), interpolation=cv2.INTER_CUBIC)
            for coarse in rng.integers(0, 256, (10_000, 8, 8)).astype(np.uint8)
        ]
    )
    descriptors["ratio"] = 1
    started = time.process_time()
    assert not list(find_near_duplicate_pairs([descriptor.tobytes() for descriptor in descriptors]))
    assert time.process_time() - started < 60


def test_a_duplicate_group_grows_to_its_limit() -> None:
    groups = DisjointSets(6)
    assert groups.join(0, 1)
    assert not groups.join(1, 0)
    assert groups.join(2, 3)
    assert not groups.join(0, 3, most=3)
    assert groups.join(0, 3, most=4)
    assert len(set(groups.names.tolist())) == 3


def test_components_join_over_any_number_of_steps() -> None:
    assert find_components(6, [(4, 5), (1, 4), (0, 2)]) == [0, 1, 0, 3, 1, 1]
    assert find_components(3, iter([])) == [0, 1, 2]
    assert find_components(2, iter([(1, 1), (0, 1), (1, 0)])) == [0, 0]
    assert find_components(0, []) == []
    assert list(find_equal_pairs(["a", None, "b", "a", None, "a"])) == [(0, 3), (0, 5)]
    assert list(list_group_members([])) == []
    assert list(list_group_members([9, 7, 9, 3, 7])) == [[0, 2], [1, 4], [3]]
    assert list(list_group_members([0, 1, 0, 3, 1])) == [[0, 2], [1, 4], [3]]
