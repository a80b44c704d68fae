"""A run on wide images whose sides alone tell their class: how an image is fitted into the frame matters."""

import numpy as np
import pytest
from once import made_once
from PIL import Image
from tiny_backbones import TINY, tiny_backbones

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}
RECIPE = {
    "name": "wide",
    "seed": 3,
    "data": {"image_size": 32, "workers": 0, "augmentation": "none", "split": {"val": 0.5, "test": 0.1}},
    "model": {"backbone": TINY, "weights": "random"},
    "train": {"batch_size": 16, "stages": [{"name": "all", "unfreeze": "all", "epochs": 25, "learning_rate": 0.01}]},
    # A share that so few validation images can choose a threshold for.
    "evaluate": {"bootstrap_samples": 100, "explain": 0, "out_of_distribution_share": 0.1},
    "tracking": {"enabled": False},
}


def draw_wide_images(folder):
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for index in range(30):
            pixels = random.integers(100, 156, (24, 72, 3))
            pixels[:, :24] = pixels[:, 48:] = colour
            noisy = np.clip(pixels + random.integers(-30, 30, (24, 72, 1)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / name / f"{index}.png")


@pytest.fixture(scope="session")
def wide_run(tmp_path_factory):
    """The folder of a finished run; nobody changes it."""

    def make(folder):
        from imagetune.commands.fit import fit

        draw_wide_images(folder / "images")
        recipe = {**RECIPE, "data": {**RECIPE["data"], "source": str(folder / "images")}}
        with tiny_backbones():
            fit(recipe, run_dir=folder / "run")

    return made_once(tmp_path_factory, "wide", make) / "run"


@pytest.fixture(scope="session")
def litert(wide_run, tmp_path_factory):
    """The run's export to LiteRT, which was accepted; nobody changes it."""

    def make(folder):
        from imagetune.commands.export import export

        with tiny_backbones():
            export(str(wide_run), format="litert", out=folder / "litert")

    return made_once(tmp_path_factory, "wide-litert", make) / "litert"
