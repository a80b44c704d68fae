"""A run with an untrained model, and `imagetune serve` on it as a process, spoken to over real HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

CLASSES = ("blue", "green", "red")
_START_SECONDS = 180.0


def make_untrained_run(folder: Path, **manifest: Any) -> Path:
    """Write the folder of a finished run whose head has random weights, and return it.

    Args:
        folder: The folder to make.
        **manifest: Further values of its manifest; ``task``, ``class_names`` and ``size`` of the model.
    """
    import keras

    from imagetune.core.files import write_json, write_text
    from imagetune.model.build import build_model
    from imagetune.model.load_weights import load_weights
    from imagetune.model.manifest import save_model, update_manifest
    from imagetune.recipe.sections.data import ImageSettings
    from imagetune.recipe.sections.model import ModelConfig

    task, names = manifest.pop("task", "single_label"), manifest.pop("class_names", CLASSES)
    size = manifest.pop("size", 32)
    config = ModelConfig(backbone="efficientnet_lite0", weights="imagenet")
    keras.utils.set_random_seed(1)
    model = build_model(config, num_classes=len(names), image_size=(size, size), task=task)
    # With random weights every image would have the same features.
    load_weights(model, config)
    folder.mkdir(parents=True)
    image = ImageSettings(height=size, width=size)
    save_model(model, folder / "model", config=config, class_names=names, image=image, task=task, max_pixels=1_000_000)
    update_manifest(folder / "model", manifest)
    write_text(folder / "recipe.yaml", "name: served\ndata: {source: .}\n")
    write_text(folder / "model_card.md", "# A card\n")
    write_json(folder / "status.json", {"state": "finished", "stage": "all", "epoch": 1, "step": 1, "error": None})
    accuracy = {"value": 0.5, "low": 0.4, "high": 0.6}
    write_json(folder / "evaluation.json", {"splits": {"test": {"images": 100, "metrics": {"accuracy": accuracy}}}})
    return folder


@dataclass(frozen=True)
class Reply:
    """The reply to a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """Return its body as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A server that is running."""

    process: subprocess.Popen[str]
    address: str
    log: Path

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.address.rpartition(":")[2])

    @property
    def model_process(self) -> psutil.Process:
        """The process that holds the model."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "spawn_main" in " ".join(child.cmdline()))

    def send(self, path: str, body: bytes | None = None, kind: str = "", **headers: str) -> Reply:
        """Return the reply to a POST of the body, or to a GET without one."""
        given = {**({"Content-Type": kind} if kind else {}), **headers}
        request = urllib.request.Request(self.address + path, data=body, headers=given)
        try:
            with urllib.request.urlopen(request, timeout=60) as reply:
                return Reply(reply.status, dict(reply.headers), reply.read())
        except urllib.error.HTTPError as error:
            return Reply(error.code, dict(error.headers), error.read())

    def send_files(self, files: dict[str, bytes], **headers: str) -> Reply:
        """Return the reply to files in the field ``images`` of a form."""
        return self.send("/v1/predict", build_form(files), "multipart/form-data; boundary=edge", **headers)

    def events(self) -> list[dict[str, Any]]:
        """Return the lines of the log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def await_workers(self) -> None:
        """Wait until all processes have loaded the model; the first one alone answers before."""
        (workers,) = (event["workers"] for event in self.events() if event["event"] == "ready")
        while f"imagetune_workers_ready {workers}.0" not in self.send("/metrics").body.decode():
            time.sleep(0.1)

    def stop(self) -> int:
        """Stop the server and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def build_form(files: dict[str, bytes]) -> bytes:
    """Return a multipart body with boundary ``edge``: files by name in the field ``images``."""
    parts = [
        f'--edge\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files.items()
    ]
    return b"".join(parts) + b"--edge--\r\n"


@contextmanager
def serving(run: Path, folder: Path, *options: str) -> Iterator[Served]:
    """Run `imagetune serve` on a free port during the block.

    Args:
        run: The run folder.
        folder: Where its log goes.
        *options: More of its command line.
    """
    log, errors = folder / "log.jsonl", folder / "stderr.txt"
    command = [sys.executable, "-m", "imagetune", "serve", str(run), "--port", "0", *options]
    with log.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            command, stdout=out, stderr=err, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        yield Served(process, _await_address(process, log, errors), log)
    finally:
        process.kill()
        process.wait()


def _await_address(process: subprocess.Popen[str], log: Path, errors: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for line in log.read_text().splitlines():
            if '"ready"' in line:
                return str(json.loads(line)["address"])
        time.sleep(0.05)
    raise RuntimeError(errors.read_text())
