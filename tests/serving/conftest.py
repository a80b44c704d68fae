"""A server on a run with an untrained model: one a module, as each loads Keras."""

import io

import numpy as np
import pytest
from once import made_once
from PIL import Image
from served import make_untrained_run, serving

SETS = {
    "conformal": {"method": "least_ambiguous", "coverage": 0.9, "threshold": 0.34},
    "out_of_distribution": {"score": "energy", "threshold": -1.2, "share": 0.05},
}


@pytest.fixture(scope="session")
def untrained_run(tmp_path_factory):
    """The folder of a finished run; nobody changes it."""
    return made_once(tmp_path_factory, "untrained", lambda folder: make_untrained_run(folder / "run", **SETS)) / "run"


@pytest.fixture(scope="module")
def served(untrained_run, tmp_path_factory):
    """A server with the default options."""
    with serving(untrained_run, tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="session")
def files():
    """Images by name: upright and turned by EXIF, transparent, grey, of other sizes than the model's."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (48, 80, 3), np.uint8)
    made = {
        "plain.png": (Image.fromarray(pixels), {}),
        "turned.jpg": (Image.fromarray(pixels[:, :60]), {"exif": _turned()}),
        "clear.png": (Image.fromarray(random.integers(0, 256, (40, 40, 4), np.uint8), "RGBA"), {}),
        "grey.webp": (Image.fromarray(pixels[..., 0]), {"lossless": True}),
        "large.jpg": (Image.fromarray(pixels).resize((640, 400)), {}),
    }
    return {name: _encode(image, name, **options) for name, (image, options) in made.items()}


def _turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def _encode(image, name, **options):
    file = io.BytesIO()
    image.save(file, "JPEG" if name.endswith("jpg") else name.partition(".")[2].upper(), **options)
    return file.getvalue()
