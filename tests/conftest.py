"""Images and command lines that tests share."""

import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from once import made_once
from tiny_backbones import tiny_backbones

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Keep what tests cache away from the user's own."""
    os.environ["IMAGETUNE_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module", autouse=True)
def _memory_returned():
    """Give back what Keras and TensorFlow keep of a module's models: over all tests it would be gigabytes."""
    from imagetune.model.traces import free_graphs

    with free_graphs():
        yield
    if "keras" in sys.modules:
        sys.modules["keras"].backend.clear_session()
        # What the libraries have made of themselves stays; to look through it after each module takes half a second.
        if not gc.get_freeze_count():
            gc.freeze()


COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


def draw_images(folder: Path, *, count: int = 10, size: int = 32, colours=COLOURS, seed: int = 0) -> Path:
    """Write ``count`` noisy PNGs a class into class folders, each different from all others."""
    import cv2

    random = np.random.default_rng(seed)
    for name, colour in colours.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            # Coarse noise makes images that even a perceptual hash can tell apart.
            coarse = random.integers(-35, 35, (8, 8, 3)).astype(np.float32)
            noise = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
            image = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(folder / name / f"{name}{index:02d}.png"), image[..., ::-1])
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """A folder of three easily told classes, 32 pixels a side; nobody changes it."""
    return made_once(tmp_path_factory, "images", lambda folder: draw_images(folder / "colours")) / "colours"


@pytest.fixture(scope="session")
def new_images(tmp_path_factory):
    """Other images of the same classes, five a class, which no run was trained on; nobody changes them."""
    made = made_once(tmp_path_factory, "new", lambda folder: draw_images(folder / "new", count=5, seed=1))
    return made / "new"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """A migrated sqlite store without runs: making one takes seconds, copying it none."""

    def make(folder):
        from imagetune.tracking.store import open_client

        open_client(f"sqlite:///{folder / 'mlflow.db'}")

    return made_once(tmp_path_factory, "store", make) / "mlflow.db"


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A disk of 256 kilobytes; where this process may not mount one, the test is skipped."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    if shutil.which("mount") is None or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this process may not mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill_disk(folder: Path, *, free_bytes: int = 0) -> None:
    """Fill the disk of a folder up to some bytes."""
    with (folder / "filling").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(folder / "filling", (folder / "filling").stat().st_size - free_bytes)


@pytest.fixture(scope="module")
def tiny():
    """Backbones that train in a moment can be named by a module's recipes: `TINY` and `PLAIN`."""
    with tiny_backbones():
        yield
