from __future__ import annotations

import pickle
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from plugin_packages import install_module

from imagetune.core.plugins import AUGMENTATIONS, list_plugin_names
from imagetune.data.loading.augmentation import (
    PRESETS,
    build_augmenter,
    find_augmentation_problems,
    resolve_augmentation,
)
from imagetune.recipe.sections.data import DataConfig, ImageSettings

IMAGE = ImageSettings(height=32, width=40, background=(255, 255, 255))
SIZE = (32, 40)


def image(seed: int = 0) -> np.ndarray:
    coarse = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8))
    return np.asarray(coarse.resize((40, 32), Image.Resampling.BICUBIC))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_work_and_keep_the_shape(name: str) -> None:
    assert find_augmentation_problems(name) == ()
    assert find_augmentation_problems(PRESETS[name], size=SIZE) == ()
    DataConfig.model_validate({"source": "x", "augmentation": name})
    augmenter = build_augmenter(name, IMAGE)
    views = [augmenter(image(), seed=(7, epoch, 3)) for epoch in range(30)]
    assert all(view.shape == (32, 40, 3) and view.dtype == np.uint8 for view in views)
    changed = sum(not np.array_equal(view, image()) for view in views)
    assert changed == 0 if name == "none" else changed > 15


@pytest.mark.parametrize("name", ["light", "strong", "randaugment"])
def test_a_view_depends_on_seed_epoch_and_index_alone(name: str) -> None:
    seeds = [(7, epoch, index) for epoch in range(3) for index in range(20)]
    augmenter = build_augmenter(name, IMAGE)
    first = [augmenter(image(), seed=seed) for seed in seeds]
    sent = pickle.loads(pickle.dumps(augmenter))
    again = {seed: sent(image(), seed=seed) for seed in reversed(seeds)}
    assert all(np.array_equal(one, again[seed]) for one, seed in zip(first, seeds, strict=True))
    with ThreadPoolExecutor(4) as pool:
        threaded = list(pool.map(lambda seed: augmenter(image(), seed=seed), seeds))
    assert all(np.array_equal(one, other) for one, other in zip(first, threaded, strict=True))
    assert len({view.tobytes() for view in first}) > 30


def test_the_image_itself_is_left_alone() -> None:
    original = image()
    kept = original.copy()
    augmenter = build_augmenter("strong", IMAGE)
    for epoch in range(20):
        augmenter(original, seed=(0, epoch, 0))
    assert np.array_equal(original, kept)


def test_uncovered_corners_show_the_background_unless_set_otherwise() -> None:
    image = ImageSettings(height=32, width=32, background=(10, 200, 30))
    full = np.zeros((32, 32, 3), np.uint8)
    turned = build_augmenter([{"Rotate": {"limit": [45, 45], "p": 1.0}}], image)(full, seed=(0, 0, 0))
    assert np.all(turned[0, 0] == (10, 200, 30))
    black = build_augmenter([{"Rotate": {"limit": [45, 45], "fill": 7, "p": 1.0}}], image)(full, seed=(0, 0, 0))
    assert np.all(black[0, 0] == 7)


def test_a_transform_that_changes_the_size_is_fitted_again() -> None:
    crop: list[dict[str, Any]] = [{"RandomCrop": {"height": 16, "width": 16, "p": 1.0}}]
    assert find_augmentation_problems(crop, size=SIZE) == ()
    assert build_augmenter(crop, IMAGE)(image(), seed=(0, 0, 0)).shape == (32, 40, 3)


def test_nested_compositions_work() -> None:
    spec: list[dict[str, Any]] = [
        {
            "OneOf": {
                "transforms": [{"Blur": {"p": 1}}, {"Sequential": {"transforms": [{"VerticalFlip": None}]}}],
                "p": 1,
            }
        },
        {"SomeOf": {"transforms": [{"HorizontalFlip": {"p": 1}}, {"ToGray": {"p": 1}}], "n": 1}},
        {"Rotate": {"interpolation": "INTER_CUBIC", "border_mode": "BORDER_REFLECT_101"}},
    ]
    assert find_augmentation_problems(spec, size=SIZE) == ()
    assert build_augmenter(spec, IMAGE)(image(), seed=(0, 0, 0)).shape == (32, 40, 3)


@pytest.mark.parametrize(
    ("spec", "where", "words"),
    [
        ("lite", (), "unknown preset 'lite'; did you mean 'light'?"),
        ([{"HorizontalFlipp": None}], (0, "HorizontalFlipp"), "no transform 'HorizontalFlipp'; did you mean 'Horizont"),
        (
            [{"Rotate": {"limits": 9}}],
            (0, "Rotate", "limits"),
            "no argument 'limits'; did you mean 'limit'?",
        ),
        (
            [{"GaussNoise": {"var_limit": 9}}],
            (0, "GaussNoise", "var_limit"),
            "available: mean_range, noise_scale",
        ),
        ([{"HorizontalFlip": {"p": 2}}], (0, "HorizontalFlip", "p"), "2 is wrong: expected a number from 0 to 1"),
        ([{"MedianBlur": {"p": True}}], (0, "MedianBlur", "p"), "True is wrong: expected a number from 0 to 1"),
        ([{"Blur": {"blur_limit": "x"}}], (0, "Blur", "blur_limit"), "'x' is wrong: input should be a valid"),
        ([{"RandomCrop": {"height": 8}}], (0, "RandomCrop"), "width is missing and has no default"),
        (
            [{"RandomCrop": {"height": 99, "width": 9}}],
            (0, "RandomCrop"),
            "on an image of 32 x 40 it fails with",
        ),
        ([{"Normalize": {}}], (0, "Normalize"), "normalisation is done by the model's first layers"),
        ([{"ToFloat": None}], (0, "ToFloat"), "images must stay uint8 RGB"),
        ([{"Compose": {"transforms": []}}], (0, "Compose"), "the list is a composition already"),
        ([{"MaskDropout": None}], (0, "MaskDropout"), "requires ['mask']"),
        ([{"Lambda": None}], (0, "Lambda"), "a recipe can't contain code"),
        ([{"A": {}, "B": {}}], (0,), "expected one transform, as `HorizontalFlip: {p: 0.5}`"),
        (["HorizontalFlip"], (0,), "expected one transform"),
        ([{"Blur": 3}], (0, "Blur"), "3 is wrong: expected its arguments"),
        ([{"OneOf": {"p": 1}}], (0, "OneOf", "transforms"), "OneOf needs `transforms`, a list"),
        ([{"OneOf": {"transforms": [{"Blur": {"p": 0}}]}}], (0, "OneOf", "transforms"), "every transform has p: 0"),
        ([{"SomeOf": {"transforms": [{"Blur": {}}], "n": 0}}], (0, "SomeOf", "n"), "whole number of at least 1"),
        (
            [{"Blur": None}, {"OneOf": {"transforms": [{"ToGray": {}}, {"Blurr": {}}]}}],
            (1, "OneOf", "transforms", 1, "Blurr"),
            "did you mean 'Blur'?",
        ),
        (
            [{"RandomCrop": {"height": 8, "width": 8, "p": 1}}, {"RandomCrop": {"height": 16, "width": 16, "p": 1}}],
            (),
            "the transforms can't be used together",
        ),
    ],
)
def test_mistakes_say_where_and_what(spec: Any, where: tuple[str | int, ...], words: str) -> None:
    problem = find_augmentation_problems(spec, size=SIZE)[0]
    assert problem.where == where
    assert words in problem.what
    assert "\n" not in problem.what


def test_all_mistakes_are_reported_at_once() -> None:
    spec = [{"Blurr": None}, {"Rotate": {"limits": 3, "pp": 1}}, {"ToGray": {"p": -1}}]
    assert len(find_augmentation_problems(spec)) == 4


def test_most_transforms_are_repeatable() -> None:
    names = ["ElasticTransform", "GridDistortion", "GaussNoise", "ISONoise", "RandomFog", "RandomRain", "Superpixels"]
    names += ["GlassBlur", "PixelDropout", "GridDropout", "RandomGridShuffle", "PiecewiseAffine", "Spatter", "FancyPCA"]
    for name in names:
        spec = [{name: {"p": 1.0}}]
        assert find_augmentation_problems(spec, size=SIZE) == ()
        views = [build_augmenter(spec, IMAGE)(image(), seed=(1, 2, 3)) for _ in range(2)]
        assert np.array_equal(*views), name


def test_the_module_starts_without_albumentations_and_without_network() -> None:
    code = (
        "import sys, socket\n"
        "def refuse(*_): raise SystemExit('asked the network')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "import imagetune.data.loading.augmentation as a\n"
        "assert not {'albumentations', 'cv2', 'pydantic'} & set(sys.modules)\n"
        "assert a.find_augmentation_problems('medium') == ()\n"
        "assert a.find_augmentation_problems([{'HorizontalFlip': {'p': 0.5}}]) == ()\n"
    )
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", code], check=True)


@pytest.mark.parametrize("interpolation", [cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4])
@pytest.mark.parametrize("border", [cv2.BORDER_CONSTANT, cv2.BORDER_REFLECT_101])
@pytest.mark.parametrize("fill", [7, (250, 20, 30)])
def test_the_quick_affine_gives_the_pixels_of_albumentations(
    interpolation: int, border: int, fill: int | tuple[int, int, int]
) -> None:
    import albumentations

    from imagetune.data.loading.warping import QuickAffine

    options: dict[str, Any] = {
        "scale": (0.7, 1.3),
        "rotate": (-30, 30),
        "shear": (-9, 9),
        "fit_output": False,
        "p": 1.0,
    }
    options |= {"interpolation": interpolation, "border_mode": border, "fill": fill}
    images = np.random.default_rng(0).integers(0, 256, (20, 61, 83, 3), np.uint8)
    quick, plain = (albumentations.Compose([kind(**options)]) for kind in (QuickAffine, albumentations.Affine))
    for seed, pixels in enumerate(images):
        for composition in (quick, plain):
            composition.set_random_seed(seed)
        assert np.array_equal(quick(image=pixels)["image"], plain(image=pixels)["image"])


PLUGIN_SOURCE = """
def half(size):
    return [{"RandomCrop": {"height": size[0] // 2, "width": size[1] // 2}}]

def misspelt(size):
    return [{"HorizontalFlop": {}}]

def text(size):
    return "light"
"""


@pytest.fixture
def plugin_presets(tmp_path, monkeypatch):
    points = {name: name for name in ("half", "misspelt", "text")}
    source = install_module(tmp_path, "preset-pack", "imagetune.augmentations", points, PLUGIN_SOURCE)
    monkeypatch.syspath_prepend(source)
    return source


def test_a_plugins_preset_depends_on_the_size(plugin_presets):
    assert find_augmentation_problems("half", size=SIZE) == ()
    assert resolve_augmentation("half", (40, 60)) == ({"RandomCrop": {"height": 20, "width": 30}},)


def test_an_augmenter_needs_no_plugin_once_it_is_pickled(plugin_presets, monkeypatch):
    packed = pickle.dumps(build_augmenter("half", IMAGE))
    monkeypatch.syspath_prepend("")
    monkeypatch.setattr(sys, "path", [folder for folder in sys.path if folder != str(plugin_presets)])
    assert list_plugin_names(AUGMENTATIONS) == ()
    assert pickle.loads(packed)._spec[0].keys() == {"RandomCrop"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("misspelt", "the plug-in's preset 'misspelt' is wrong: 0.HorizontalFlop: .*HorizontalFlip"),
        ("text", "the augmentation preset 'text' of the package preset-pack 0.3 .* expected a list of transforms"),
    ],
)
def test_a_plugins_preset_that_is_wrong_is_reported(plugin_presets, name, reason):
    (problem,) = find_augmentation_problems(name, size=SIZE)
    assert re.search(reason, problem.what)
