"""Images a second over HTTP against those of the bare runtime, and the time to a reply at 70% of that load.

    python -m benchmarks.serving RUN [--seconds 15] [--rounds 3] [--workers N] [--out METRICS.json]

RUN is a finished run or an export; for the figures of docs/serving.md it has EfficientNet-Lite0 at 224 pixels. The bare
runtime predicts decoded images from memory in a process of its own, at the best of the batch sizes 1 to 32. Over
HTTP 64 clients on the same machine each send one JPEG after another, which is decoded as well; the clients take their
share of the same cores. Both are measured in turn, and the median is shown with the smallest and the largest. Beside
the rates stands the processor's time an image, of the server's processes together, which other programs disturb less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.http_load import Load, Sample, run_arrivals, run_clients
from benchmarks.sets import write_jpegs
from benchmarks.side_by_side import machine_line, save_json

CLIENTS = 64
SIZES = (1, 2, 4, 8, 16, 32)
IMAGES = 64
# A little larger than the model's input, as thumbnails are.
PIXELS = (240, 320)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        print(json.dumps(measure_bare(options.run, options.seconds)))
        return
    found = measure(options.run, options.seconds, options.rounds, options.workers)
    print(machine_line())
    for name, value in found.items():
        print(f"{name:28} {value}")
    if options.out:
        save_json(options.out, found)


def measure(run: Path, seconds: float, rounds: int, workers: int | None) -> dict[str, Any]:
    """Return images a second of both, their ratio, and the time to a reply at 70% of the load."""
    with tempfile.TemporaryDirectory(prefix="imagetune-serving-") as name:
        records = write_jpegs(Path(name) / "images", classes=4, count=IMAGES, size=PIXELS)
        samples = [Sample(Path(record.path).read_bytes(), "image/jpeg") for record in records]
        bare, served = [], []
        for _ in range(rounds):
            bare.append(max(_run_bare(run, seconds / len(SIZES))))
            with _serve(run, Path(name), workers) as (port, process):
                run_clients(port, samples, clients=CLIENTS, duration_seconds=3)
                begun = _measure_cpu(process)
                load = run_clients(port, samples, clients=CLIENTS, duration_seconds=seconds)
                taken = _measure_cpu(process) - begun
            _require_clean(load)
            served.append((len(load.seconds) / seconds, 1000 * taken / len(load.seconds)))
        rate = 0.7 * statistics.median(images for images, _ in served)
        with _serve(run, Path(name), workers) as (port, _):
            run_clients(port, samples, clients=CLIENTS, duration_seconds=3)
            load = run_arrivals(port, samples, rate=rate, duration_seconds=2 * seconds)
        _require_clean(load)
    p50, p99 = (float(np.quantile(load.seconds, share)) for share in (0.5, 0.99))
    return {
        "bare images/s": _describe([images for images, _ in bare]),
        "HTTP images/s": _describe([images for images, _ in served]),
        "HTTP / bare": _describe([ours[0] / theirs[0] for ours, theirs in zip(served, bare, strict=True)]),
        "bare CPU ms/image": _describe([cpu for _, cpu in bare]),
        "HTTP CPU ms/image": _describe([cpu for _, cpu in served]),
        "requests/s at 70%": round(rate, 1),
        "p50 ms": round(1000 * p50, 1),
        "p99 ms": round(1000 * p99, 1),
        "p99 / p50": round(p99 / p50, 2),
    }


def measure_bare(run: Path, seconds: float) -> list[tuple[float, float]]:
    """Return images a second of the model in this process, and CPU milliseconds an image, for each batch size."""
    from imagetune.run_folder.plain_predict import open_model
    from imagetune.serving.predictor import open_predictor

    loaded = open_predictor(run).loaded
    forward = open_model(run) if loaded.model is None else loaded.model.predict_on_batch
    shape = (max(SIZES), loaded.image.height, loaded.image.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    found = []
    for size in SIZES:
        for _ in range(3):
            forward(images[:size])
        count, begun, cpu = 0, time.perf_counter(), time.process_time()
        while (taken := time.perf_counter() - begun) < seconds:
            forward(images[:size])
            count += size
        found.append((count / taken, 1000 * (time.process_time() - cpu) / count))
    return found


def _run_bare(run: Path, seconds: float) -> list[tuple[float, float]]:
    command = [sys.executable, "-m", "benchmarks.serving", str(run), "--bare", "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [(images, cpu) for images, cpu in json.loads(done.stdout.splitlines()[-1])]


@contextmanager
def _serve(run: Path, folder: Path, workers: int | None) -> Iterator[tuple[int, psutil.Process]]:
    more = [] if workers is None else ["--workers", str(workers)]
    command = [sys.executable, "-m", "imagetune", "serve", str(run), "--port", "0", *more]
    log = folder / "log.jsonl"
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out)
    try:
        while not (line := next((line for line in log.read_text().splitlines() if '"ready"' in line), "")):
            time.sleep(0.1)
            if process.poll() is not None:
                sys.exit("the server does not start")
        ready = json.loads(line)
        # The others load the model while the first one answers.
        while f"imagetune_workers_ready {ready['workers']}.0" not in _fetch(ready["address"] + "/metrics"):
            time.sleep(0.2)
        yield int(ready["address"].rpartition(":")[2]), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _measure_cpu(process: psutil.Process) -> float:
    """Return the CPU seconds that a process and its children have taken."""
    times = [each.cpu_times() for each in (process, *process.children())]
    return sum(each.user + each.system for each in times)


def _fetch(address: str) -> str:
    with urllib.request.urlopen(address, timeout=10) as reply:
        return str(reply.read().decode())


def _require_clean(load: Load) -> None:
    if load.wrong or load.lost or load.refused:
        sys.exit(f"{load.wrong} wrong, {load.lost} lost, refused: {dict(load.refused)}")


def _describe(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


if __name__ == "__main__":
    main()
