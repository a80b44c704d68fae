import json
import re

import pytest

from imagetune.core.row_store import find_cache_root

SMALL = ("-o", "train.batch_size=8")
HEAD = ("-o", "train.stages=[{name: head, epochs: 6, learning_rate: 0.01}]")


def everything(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.fixture
def profiled(imagetune, recipe, workplace, tmp_path_factory, monkeypatch):
    """A profile as text and as numbers, and whether anything was left behind."""
    cache = tmp_path_factory.mktemp("fresh-cache")
    monkeypatch.setenv("IMAGETUNE_CACHE", str(cache))
    return lambda *arguments: imagetune("profile", recipe, *SMALL, *arguments)


def test_a_profile_names_every_piece_and_leaves_nothing_behind(profiled, workplace):
    before = everything(workplace)
    outcome = profiled("-o", "data.augmentation=light", *HEAD)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 100
    assert everything(workplace) == before
    # What the audit knows of each file is no trace of a training.
    assert not {path.name for path in find_cache_root().iterdir()} & {"features", "images"}
    first = [re.match(r" *(\S+( \S+)*)?", line).group() for line in lines]
    for name in (
        "reading the file",
        "decoding to 32 x 32",
        "augmenting, light",
        "  HorizontalFlip",
        "  Affine",
        "  ColorJitter",
        "loading as configured, threads",
        "  once images are kept decoded",
        "into the batch and to the device",
        "stage head: frozen layers, forward",
        "stage head: training step",
        "stage head: step on kept features",
        "validation, forward",
    ):
        assert name in first
    labels = [line.split()[0] for line in lines[-12:] if line[:1].strip()]
    assert labels[-4:] == ["stage", "in", "bottleneck", "setting"]


@pytest.mark.slow
def test_the_numbers_of_a_profile_fit_together(profiled):
    outcome = profiled("--json", "-o", "data.workers=auto", "-o", "train.cache=off")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert (found["workers"], found["images"]["train"] > 10, found["batch_size"]) == (0, True, 8)
    assert any(line.startswith("workers     0: threads load ") for line in outcome.err.splitlines())
    for stage in found["stages"]:
        assert stage["seconds"] == pytest.approx(sum(stage["seconds_by_piece"].values()))
        assert stage["features"] == "train.cache is off"
        assert stage["cached_step"] is None
        assert stage["step"]["min"] <= stage["step"]["seconds"] <= stage["step"]["max"]
    assert found["seconds"] == pytest.approx(sum(stage["seconds"] for stage in found["stages"]))
    settings = [advice["setting"] for advice in found["advice"]]
    assert "data.cache" not in settings
    (loading,) = found["loading"]
    pieces = sum(piece["seconds"] for piece in loading["one_core"].values())
    assert loading["one_core_images_per_second"] == pytest.approx(1 / pieces)
    for advice in found["advice"]:
        assert 0 < advice["saves_seconds"] <= found["seconds"]


@pytest.mark.slow
def test_large_images_make_decoding_the_bottleneck_and_the_cache_the_setting(imagetune, recipe, workplace):
    import cv2
    import numpy as np

    random = np.random.default_rng(0)
    for name in ("left", "right"):
        (workplace / "large" / name).mkdir(parents=True)
        for index in range(8):
            coarse = random.integers(0, 256, (12, 16, 3), np.uint8)
            large = cv2.resize(coarse, (1600, 1200), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(workplace / "large" / name / f"{name}{index}.png"), large)
    stages = "train.stages=[{name: all, unfreeze: all, epochs: 400, learning_rate: 0.001}]"
    overrides = ("data.source=large", "data.cache=off", "data.augmentation=none", stages)
    options = [option for override in overrides for option in ("-o", override)]
    outcome = imagetune("profile", recipe, *SMALL, *options, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json()
    assert found["bottleneck"]["piece"] == "decoding"
    best = found["best"]
    assert (best["setting"], best["value"], best["same_result"]) == ("data.cache", "auto", True)
    assert best["share"] > 0.3


def test_a_profile_of_a_recipe_that_is_wrong_says_so_in_a_line(imagetune, recipe):
    outcome = imagetune("profile", recipe, "-o", "data.workers=-1")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("error[recipe] ") and "data.workers" in line


def test_fit_measures_the_workers_and_writes_them_into_its_recipe(imagetune, recipe, workplace):
    import yaml

    options = ("-o", "train.stages=linear_probe", "-o", "train.epochs=1", "-o", "data.workers=auto")
    outcome = imagetune("fit", recipe, *SMALL, *options, "-o", "tracking.enabled=false", "--run-dir", "run")
    assert outcome.code == 0, outcome.err
    (said,) = (line for line in outcome.err.splitlines() if line.startswith("workers "))
    assert said.startswith("workers     0: threads load ") or said == "workers     0: there is one core"
    data = yaml.safe_load((workplace / "run" / "recipe.yaml").read_text())["data"]
    assert data["workers"] == 0
    assert json.loads((workplace / "run" / "status.json").read_text())["state"] == "finished"
