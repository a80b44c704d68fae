from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from PIL import Image

from imagetune.data.families import components, equal_pairs, members
from imagetune.data.perceptual import _candidates, edge_correlation, look_of, near_pairs


def photo(seed: int, side: int = 240) -> np.ndarray:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8))
    return np.asarray(coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC))


def alike(one: np.ndarray, other: np.ndarray) -> bool:
    first, second = look_of(one), look_of(other)
    hashes = [first[0], second[0]]
    return None not in hashes and bool(list(near_pairs(hashes, [first[1], second[1]], [first[2], second[2]])))


def changed(picture: np.ndarray, how: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    match how:
        case "jpeg":
            return cv2.imdecode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], cv2.IMREAD_COLOR_BGR)
        case "half":
            return cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        case "brighter":
            return np.clip(picture * 1.15 + 5, 0, 255).astype(np.uint8)
        case "noisy":
            return np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
    return np.pad(picture, ((20, 20), (30, 30), (0, 0)), constant_values=255)


@pytest.mark.parametrize("how", ["jpeg", "half", "brighter", "noisy", "framed"])
def test_a_changed_copy_is_recognised(how: str) -> None:
    assert np.mean([alike(photo(seed), changed(photo(seed), how)) for seed in range(20)]) >= 0.9


def test_different_pictures_are_not_alike() -> None:
    looks = [look_of(photo(seed)) for seed in range(300)]
    codes, thumbnails, ratios = zip(*looks, strict=True)
    assert not list(near_pairs(codes, thumbnails, ratios))


def test_plain_pictures_have_no_hash() -> None:
    assert look_of(np.full((40, 40, 3), 200, np.uint8))[0] is None
    assert look_of(np.zeros((1, 1, 3), np.uint8))[0] is None


def test_flags_with_other_stripes_are_not_alike() -> None:
    def flag(*shades: int) -> np.ndarray:
        return np.repeat(np.repeat(np.array(shades, np.uint8), 30)[:, None, None], 160, axis=1).repeat(3, axis=2)

    assert not alike(flag(40, 200, 90), flag(200, 40, 160))


def test_edges_correlate_with_themselves() -> None:
    thumbnail = look_of(photo(1))[1]
    assert edge_correlation(thumbnail, thumbnail) == pytest.approx(1.0)
    assert edge_correlation(thumbnail, bytes(1024)) == 0.0


def test_the_index_finds_every_pair_within_the_distance() -> None:
    rng = np.random.default_rng(3)
    codes = rng.integers(0, 2**63, 400, dtype=np.uint64)
    for index in range(200):
        flips = rng.choice(64, rng.integers(0, 7), replace=False)
        codes[200 + index] = codes[index] ^ np.uint64(sum(1 << int(bit) for bit in flips))
    distance = np.bitwise_count(codes[:, None] ^ codes[None])
    wanted = {(int(one), int(other)) for one, other in zip(*np.nonzero(np.triu(distance <= 6, 1)), strict=True)}
    found = {pair for first, second in _candidates(codes) for pair in zip(first.tolist(), second.tolist(), strict=True)}
    assert wanted <= found
    assert len(wanted) >= 200


def test_a_hundred_thousand_hashes_take_seconds() -> None:
    codes = np.random.default_rng(0).integers(0, 2**63, 100_000, dtype=np.uint64)
    started = time.process_time()
    assert sum(len(first) for first, _ in _candidates(codes)) > 0
    assert time.process_time() - started < 20


def film(scenes: int, frames: int, seed: int = 0) -> tuple[list[int], list[bytes]]:
    """Return hashes and thumbnails of scenes whose frames differ by a few bits and some noise."""
    rng = np.random.default_rng(seed)
    codes, thumbnails = [], []
    for _ in range(scenes):
        code = int(rng.integers(0, 2**63))
        scene = cv2.resize(rng.integers(0, 256, (8, 8)).astype(np.uint8), (32, 32), interpolation=cv2.INTER_CUBIC)
        for _ in range(frames):
            flips = rng.choice(64, rng.integers(0, 4), replace=False)
            codes.append(code ^ sum(1 << int(bit) for bit in flips))
            thumbnails.append(np.clip(scene + rng.normal(0, 1, scene.shape), 0, 255).astype(np.uint8).tobytes())
    return codes, thumbnails


def test_pairs_connect_what_looks_alike_and_nothing_else() -> None:
    codes, thumbnails = film(12, 9)
    # The same hashes with other drawings: only the edges tell them apart.
    codes, thumbnails = codes * 2, [*thumbnails, *film(12, 9, seed=1)[1]]
    ratios = [1.0, 1.0, 1.3] * (len(codes) // 3)
    wanted = [
        (one, other)
        for one in range(len(codes))
        for other in range(one + 1, len(codes))
        if (codes[one] ^ codes[other]).bit_count() <= 6
        and max(ratios[one], ratios[other]) / min(ratios[one], ratios[other]) < 1.12
        and edge_correlation(thumbnails[one], thumbnails[other]) >= 0.85
    ]
    found = list(near_pairs(codes, thumbnails, ratios))
    assert components(len(codes), found) == components(len(codes), wanted)
    assert set(map(tuple, map(sorted, found))) <= set(wanted)
    assert len(found) < len(wanted)


def test_a_long_film_takes_seconds() -> None:
    codes, thumbnails = film(2, 2000)
    started = time.process_time()
    assert len(list(near_pairs(codes, thumbnails, [1.0] * len(codes)))) == len(codes) - 2
    assert time.process_time() - started < 20


def test_components_join_over_any_number_of_steps() -> None:
    assert components(6, [(4, 5), (1, 4), (0, 2)]) == [0, 1, 0, 3, 1, 1]
    assert list(equal_pairs(["a", None, "b", "a", None, "a"])) == [(0, 3), (0, 5)]
    assert list(members([])) == []
    assert list(members([9, 7, 9, 3, 7])) == [[0, 2], [1, 4], [3]]
    assert list(members([0, 1, 0, 3, 1])) == [[0, 2], [1, 4], [3]]
