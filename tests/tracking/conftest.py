"""Run folders, stores and servers for the tests of tracking."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagetune.run_folder.plain_model import SCRIPT
from imagetune.tracking.store import prepare_environment

# The helpers are found whichever way pytest imports its files.
sys.path.insert(0, str(Path(__file__).parent))
from tracking_helpers import CLASSES, Server, add_epoch, end_run, find_port, start_run


@pytest.fixture(autouse=True)
def own_place(tmp_path, monkeypatch):
    """No test sees the user's own MLflow settings or working folder."""
    for name in list(os.environ):
        if name.startswith("MLFLOW_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    prepare_environment()
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)


@pytest.fixture
def run_dir(tmp_path) -> Path:
    """A finished run without a model."""
    folder = start_run(tmp_path / "runs" / "clipart-20261121-101500-3f2a")
    for epoch in (1, 2, 3):
        add_epoch(folder, epoch)
    end_run(folder)
    return folder


@pytest.fixture(scope="session")
def keras_file(tmp_path_factory) -> Path:
    """A small Keras model for 32-pixel images and three classes."""
    import keras

    path = tmp_path_factory.mktemp("model") / "model.keras"
    inputs = keras.Input((32, 32, 3), name="image")
    hidden = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(inputs))
    keras.Model(inputs, keras.layers.Dense(len(CLASSES), activation="softmax")(hidden)).save(path)
    return path


@pytest.fixture
def run_with_model(run_dir, keras_file) -> Path:
    """A finished run with its model and all that belongs to it."""
    (run_dir / "model.keras").write_bytes(keras_file.read_bytes())
    (run_dir / "model").mkdir()
    (run_dir / "model" / "manifest.json").write_text(json.dumps({"class_names": CLASSES}))
    (run_dir / "model" / "model.weights.h5").write_bytes(b"weights")
    shutil.copyfile(SCRIPT, run_dir / "predict.py")
    labels = {"task": "single_label", "class_names": CLASSES, "size": [32, 32], "resize": "pad", "background": [0] * 3}
    (run_dir / "labels.json").write_text(json.dumps(labels))
    return run_dir


@pytest.fixture
def free_port() -> int:
    """A port on which nobody listens."""
    return find_port()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that accepts every connection and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def store(tmp_path, empty_store) -> str:
    """The default store of the working folder, ready to use."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture(scope="session")
def server(tmp_path_factory, empty_store) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copyfile(empty_store, folder / "server.db")
    running = Server(folder, find_port(), f"sqlite:///{folder}/server.db")
    running.start()
    yield running
    running.stop()
