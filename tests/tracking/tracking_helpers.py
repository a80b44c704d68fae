"""A small run folder as `fit` leaves it, step by step, and a real MLflow server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import requests

CLASSES = ["boats", "fruit", "tools"]
RECIPE = """\
name: clipart
seed: 7
data:
  source: {source}
  image_size: 32
  classes: null
  augmentation:
  - HorizontalFlip: {{p: 0.5}}
model:
  backbone: efficientnet_lite0
  weights: imagenet
  head: {{pooling: avg, hidden: [], dropout: 0.2}}
train:
  stages:
  - {{name: head, unfreeze: none, epochs: 2, learning_rate: 0.001}}
  - {{name: top, unfreeze: last 3 blocks, epochs: 1, learning_rate: 0.0001}}
  class_weights: {{"a: b/c": 2.0}}
tracking: {{uri: null, experiment: null, required: false}}
"""


def metrics_line(epoch: int) -> str:
    metrics = {
        "loss": 1.0 / epoch,
        "accuracy": 0.5 + epoch / 10,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.4 + epoch / 10,
    }
    line = {
        "stage": "head" if epoch < 3 else "top",
        "epoch": epoch,
        "step": epoch * 4,
        "train": metrics,
        "val": {**metrics, "loss": 1.1 / epoch},
        "learning_rate": 0.001,
        "images_per_second": 120.5,
    }
    return json.dumps(line) + "\n"


def evaluation(accuracy: float = 0.875) -> dict[str, object]:
    metrics = {
        name: {"value": accuracy, "low": accuracy - 0.1, "high": accuracy + 0.05}
        for name in ("accuracy", "balanced_accuracy", "f1")
    }
    metrics["log_loss"] = {"value": 0.41, "low": 0.3, "high": 0.5}
    return {
        "class_names": CLASSES,
        "splits": {"test": {"metrics": metrics}, "val": {"metrics": metrics}},
        "top_k": 2,
        "bootstrap": {"confidence": 0.95},
        "verdict": {"code": "close", "title": "Training and test are close", "text": "No gap.", "advice": "Go on."},
        "requirements": [{"metric": "f1", "met": False, "message": "test f1: 0.1 below the required 0.9"}],
    }


def set_state(run_dir: Path, state: str, **more: object) -> None:
    status = {"state": state, "stage": "top", "epoch": 3, "step": 12, "error": None, "pid": os.getpid(), **more}
    (run_dir / "status.json").write_text(json.dumps(status))


def start_run(run_dir: Path) -> Path:
    """Write what a run folder holds before its first epoch."""
    run_dir.mkdir(parents=True)
    (run_dir / "recipe.yaml").write_text(RECIPE.format(source=run_dir.parent / "images"))
    (run_dir / "lock.json").write_text(json.dumps({"versions": {"numpy": "2.4.6"}, "images": {"a.png": "00"}}))
    rows = [
        f"{label}/{i}.png,{label},{split},"
        for i, split in enumerate(["train"] * 4 + ["val", "test"])
        for label in CLASSES
    ]
    (run_dir / "splits.csv").write_text("\n".join(["path,label,split,group", *rows]) + "\n")
    (run_dir / "audit.json").write_text("{}")
    set_state(run_dir, "running")
    return run_dir


def add_epoch(run_dir: Path, epoch: int) -> None:
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write(metrics_line(epoch))


def end_run(run_dir: Path, state: str = "finished", **more: object) -> None:
    """Write what a run folder holds at its end, the model left out."""
    (run_dir / "evaluation.json").write_text(json.dumps(evaluation()))
    (run_dir / "predictions").mkdir(exist_ok=True)
    (run_dir / "predictions" / "test.csv").write_text("path,label,predicted,boats,fruit,tools\n")
    (run_dir / "plots").mkdir(exist_ok=True)
    (run_dir / "plots" / "learning_curves.png").write_bytes(b"\x89PNG\r\n")
    (run_dir / "report.html").write_text("<h1>report</h1>")
    set_state(run_dir, state, **more)


def find_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


class Server:
    """A real `mlflow server` that can be stopped, frozen and started again on the same port."""

    def __init__(self, folder: Path, port: int, store: str) -> None:
        self.folder, self.port, self.uri, self.store = folder, port, f"http://127.0.0.1:{port}", store
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.store]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        quiet = subprocess.DEVNULL
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"},
            start_new_session=True,
            stdout=quiet,
            stderr=quiet,
            cwd=self.folder,
        )
        wait_until(self.answers, 90)

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.uri}/health", timeout=2).ok
        except requests.exceptions.RequestException:
            return False

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
