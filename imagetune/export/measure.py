"""Runs an export as its users will, without imagetune.

It is called as `python measure.py EXPORT IMAGES.json OUTPUTS.npz`. The images are read and predicted by the export's
own example.py. Time and memory are those of the predictions: another process reads the images.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

WARM_UP = 3
MAX_TIMED = 100
READ_AT_ONCE = 32


def main(folder: Path, listed: Path, target: Path) -> None:
    """Write outputs (n, k) and OOD scores (n,), NaN where there is none; reasons, seconds a call and peak memory."""
    sys.path.insert(0, str(folder))
    about = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    paths = json.loads(listed.read_text(encoding="utf-8"))
    outputs, scores, encoded, reasons, seconds = [], [], [], [], []
    with ProcessPoolExecutor(1) as reader:
        # The process is forked here, before a runtime has threads that a fork would break.
        reader.submit(len, "").result()
        example = importlib.import_module("example")
        predict = example.open_runtime(folder)
        predict_file = open_encoded(folder) if (folder / "saved_model").is_dir() else None
        for path, image, reason in read_images(reader, paths, about):
            reasons.append(reason)
            started = time.perf_counter()
            found = None if image is None else predict(image[None])
            seconds += [time.perf_counter() - started] if image is not None else []
            outputs.append(None if found is None else found["probabilities"][0])
            scores.append(None if found is None else example.score_images(found, about, folder))
            if predict_file is not None:
                encoded.append(None if image is None else predict_file(path))
    width = len(about["class_names"])
    np.savez(
        target,
        outputs=stack(outputs, width),
        scores=stack(scores, 1)[:, 0],
        encoded=stack(encoded, width),
        reasons=np.array(reasons),
        # The first calls allocate and compile.
        seconds=np.array(seconds[WARM_UP : WARM_UP + MAX_TIMED] or seconds or [np.nan]),
        peak_bytes=find_peak_bytes(),
    )


def find_peak_bytes() -> int:
    """Return the largest memory of this process."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage, in which the memory of the process that started this one lives on.
        (line,) = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def read_images(reader: ProcessPoolExecutor, paths: list[str], about: dict[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Yield each path with its image and an empty text, or with None and why it can't be read."""
    for first in range(0, len(paths), READ_AT_ONCE):
        some = paths[first : first + READ_AT_ONCE]
        for path, (image, reason) in zip(some, reader.map(read_image, some, [about] * len(some)), strict=True):
            yield path, image, reason


def read_image(path: str, about: dict[str, Any]) -> tuple[Any, str]:
    """Return an image and an empty text, or None and why it can't be read."""
    try:
        return importlib.import_module("example").load_image(path, about), ""
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever it likes for a corrupted file
        return None, str(error) or type(error).__name__


def open_encoded(folder: Path) -> Any:
    """Return a function from a path to outputs of a SavedModel's signature for files; to None where it can't read."""
    import keras

    layer = keras.layers.TFSMLayer(str(folder / "saved_model"), call_endpoint="encoded")

    def predict(path: str) -> Any:
        try:
            return np.asarray(layer(np.array([Path(path).read_bytes()], object))["probabilities"])[0]
        except Exception:  # noqa: BLE001 - TensorFlow's errors for formats that it doesn't read
            return None

    return predict


def stack(rows: list[Any], width: int) -> Any:
    """Return (n, width) numbers of rows; NaN where there is none."""
    return np.array([np.full(width, np.nan) if row is None else row for row in rows], np.float64).reshape(-1, width)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
