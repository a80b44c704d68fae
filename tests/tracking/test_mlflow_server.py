"""MLflow's own scoring server on the model that a fit has logged."""

import base64
import io
import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_backbones import TINY, tiny_backbones

from imagetune.commands.fit import fit
from imagetune.commands.predict import predict
from imagetune.tracking.state import read_state

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}
START_SECONDS = 240


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A finished run, its MLflow store, and images: one turned by EXIF, one transparent, one of another shape."""
    root = tmp_path_factory.mktemp("tracked")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (root / "images" / name).mkdir(parents=True)
        for number in range(12):
            pixels = np.clip(np.array(colour) + random.integers(-30, 30, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / "images" / name / f"{number}.png")
    store = f"sqlite:///{root / 'mlflow.db'}"
    recipe = {
        "name": "served",
        "seed": 3,
        "data": {"source": str(root / "images"), "image_size": 32, "workers": 0, "augmentation": "none"},
        "model": {"backbone": TINY, "weights": "random"},
        "train": {"batch_size": 16, "stages": [{"name": "all", "unfreeze": "all", "epochs": 8, "learning_rate": 0.01}]},
        "evaluate": {"bootstrap_samples": 100, "explain": 0},
        "tracking": {"uri": store},
    }
    with tiny_backbones():
        fit(recipe, run_dir=root / "run")
    return root / "run", store, write_images(root, random)


def write_images(folder, random):
    pixels = random.integers(0, 256, (40, 60, 3), np.uint8)
    pixels[:20] = COLOURS["red"]
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, image, options in (
        ("turned.jpg", Image.fromarray(pixels), {"exif": turned}),
        ("clear.png", Image.fromarray(random.integers(0, 256, (40, 40, 4), np.uint8), "RGBA"), {}),
        ("wide.png", Image.fromarray(pixels[:15]), {}),
    ):
        image.save(folder / name, **options)
    return [folder / name for name in ("turned.jpg", "clear.png", "wide.png")]


@contextmanager
def model_server(model, store, port, folder):
    """Run `mlflow models serve` during the block."""
    arguments = ["models", "serve", "-m", model, "-p", str(port), "--env-manager", "local"]
    environment = {**os.environ, "MLFLOW_TRACKING_URI": store, "MLFLOW_DISABLE_TELEMETRY": "true"}
    # MLflow starts the server by the name of a program, which has to be the one of this Python.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    with (folder / "server.log").open("w") as log:
        command = [sys.executable, "-m", "mlflow", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        os.killpg(process.pid, 15)
        process.wait(60)


def await_server(process, port, log):
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


def ask(port, document):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", json.dumps(document).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)["predictions"]


@pytest.mark.slow
def test_mlflow_models_serve_answers_as_predict_does(tracked, free_port, tmp_path):
    run, store, files = tracked
    with tiny_backbones():
        expected = list(predict(str(run), [str(file) for file in files]))
    model = f"models:/{read_state(run).sent['model id']}"
    rows = [[base64.b64encode(file.read_bytes()).decode()] for file in files]
    with model_server(model, store, free_port, tmp_path) as process:
        await_server(process, free_port, tmp_path / "server.log")
        answers = ask(free_port, {"dataframe_split": {"columns": ["image"], "data": rows}})
        records = ask(free_port, {"dataframe_records": [{"image": text} for (text,) in rows]})
        array = np.asarray(Image.open(files[2]))
        encoded = base64.b64encode(encode_png(array)).decode()
        (from_array,) = ask(free_port, {"dataframe_split": {"columns": ["image"], "data": [[encoded]]}})
    assert [answer["label"] for answer in answers] == [one.label for one in expected]
    assert records == answers
    assert from_array == answers[2]
    for answer, one in zip(answers, expected, strict=True):
        assert answer["probabilities"] == pytest.approx(one.probabilities, abs=1e-5)


def encode_png(array):
    """Return the way to send an array of pixels, without loss."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()
