"""The folder of an export: the model, manifest.json, example.py and README.md, and what the example predicts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION
from imagetune.core.files import compute_file_sha256, write_json, write_text
from imagetune.errors import ModelFileError
from imagetune.export.float_layers import keep_layers_float
from imagetune.export.formats import MODEL_NAMES, Target
from imagetune.export.litert import write_litert
from imagetune.export.onnx import write_onnx
from imagetune.export.outputs import build_export_model
from imagetune.export.plain_operations import multiplied_scales
from imagetune.export.readme import write_readme
from imagetune.export.sample import describe_sample, write_sample
from imagetune.export.saved_model import write_saved_model
from imagetune.model.loaded import LoadedModel
from imagetune.model.manifest import Manifest
from imagetune.model.out_of_distribution import write_statistics
from imagetune.run_folder.plain_model import SCRIPT, build_labels

MANIFEST = "manifest.json"
EXAMPLE = "example.py"
README = "README.md"
PARITY = "parity.json"
PAGE = "parity.html"
MEASURE_SECONDS = 3600.0
_MEASURE = Path(__file__).with_name("measure.py")
_RUNTIMES = {
    "saved_model": ("tensorflow", "keras", "pillow"),
    "litert": ("ai-edge-litert", "pillow"),
    "onnx": ("onnxruntime", "pillow"),
}


@dataclass(frozen=True)
class Measurement:
    """What an export predicts in a process of its own, by its own example.py.

    Attributes:
        outputs: (n, k) outputs; NaN where an image can't be read.
        scores: (n,) out-of-distribution scores; NaN where there is none.
        encoded: Of a SavedModel, (n, k) outputs of its signature for image files; else (0, k).
        reasons: (n,) why an image can't be read; empty for the others.
        milliseconds: Of each timed call with one image.
        peak_bytes: Largest memory of the process.
    """

    outputs: NDArray[np.float64]
    scores: NDArray[np.float64]
    encoded: NDArray[np.float64]
    reasons: tuple[str, ...]
    milliseconds: NDArray[np.float64]
    peak_bytes: int


def write_export(
    loaded: LoadedModel, manifest: Manifest, target: Target, folder: Path, calibration: NDArray[np.uint8]
) -> None:
    """Fill an empty folder with the export of a model; what only its own predictions tell is added by `finish_export`.

    Args:
        loaded: The model of a finished run.
        manifest: Its manifest.
        target: The format and number type.
        folder: The folder, which is there and empty.
        calibration: (n, height, width, 3) training images, for ``int8``.

    Raises:
        ResourceError: The model can't be converted, or the disk is full.
    """
    place = folder / target.model_name
    if target.format == "saved_model":
        write_saved_model(build_export_model(loaded), place, loaded.image)
    elif target.format == "litert":
        with _write_between(loaded) as between:
            write_litert(between, place, target.quantization, calibration)
    else:
        write_onnx(build_export_model(loaded), place, target.quantization, calibration)
    if loaded.detector is not None and loaded.detector.statistics is not None:
        write_statistics(loaded.detector.statistics, folder)
    write_sample(folder)
    write_json(folder / MANIFEST, _build_manifest(manifest, target, place))
    write_text(folder / EXAMPLE, SCRIPT.read_text(encoding="utf-8"))


def write_softer_models(loaded: LoadedModel, folder: Path, calibration: NDArray[np.uint8]) -> Iterator[tuple[str, ...]]:
    """Replace an int8 LiteRT model by ones with more and more layers in float32, and yield the names of these.

    Args:
        loaded: The model of a finished run.
        folder: Its export.
        calibration: (n, height, width, 3) training images.

    Raises:
        ResourceError: The model can't be converted.
    """
    with _write_between(loaded) as between:
        for kept, content in keep_layers_float(between, calibration):
            (folder / MODEL_NAMES["litert"]).write_bytes(content)
            yield kept


@contextmanager
def _write_between(loaded: LoadedModel) -> Iterator[Path]:
    """Lend the SavedModel that LiteRT's converter reads."""
    with tempfile.TemporaryDirectory(prefix="imagetune-litert-") as name:
        between, model = Path(name) / "saved_model", build_export_model(loaded)
        with multiplied_scales(model):
            write_saved_model(model, between, loaded.image, single=True)
        yield between


def finish_export(
    folder: Path,
    manifest: Manifest,
    target: Target,
    sample: NDArray[np.float64],
    *,
    scores: Mapping[str, Any] | None,
    float_layers: Sequence[str] = (),
) -> None:
    """Write manifest.json and README.md as the export's own predictions have it.

    Args:
        folder: The folder of the export.
        manifest: That of its model.
        target: The format and number type.
        sample: (k,) the export's outputs for its sample image.
        scores: The document of `compare_scores`; None without out-of-distribution scores.
        float_layers: Of int8: the layers that stayed float32.
    """
    content = _build_manifest(manifest, target, folder / target.model_name) | {
        "float_layers": list(float_layers),
        "sample": describe_sample(manifest, sample),
    }
    problem = scores["problem"] if scores else ""
    if problem:
        content["out_of_distribution"] = None
    write_json(folder / MANIFEST, content)
    write_text(folder / README, write_readme(manifest, target, _RUNTIMES[target.format], content, problem))


def measure_export(folder: Path, paths: Sequence[str]) -> Measurement:
    """Return what an export predicts for image files, in a process that knows nothing of imagetune.

    Raises:
        ModelFileError: The process fails.
    """
    with tempfile.TemporaryDirectory(prefix="imagetune-measure-") as name:
        listed, found = Path(name) / "images.json", Path(name) / "outputs.npz"
        listed.write_text(json.dumps(list(paths)), encoding="utf-8")
        # Isolated: neither variables nor the working folder may lend it what its users won't have.
        command = [sys.executable, "-IB", str(_MEASURE), str(folder), str(listed), str(found)]
        done = subprocess.run(  # noqa: S603 - our own script
            command, capture_output=True, text=True, timeout=MEASURE_SECONDS, check=False
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ModelFileError(f"the export does not run: {last}", where=str(folder))
        stored = np.load(found)
        return Measurement(
            outputs=stored["outputs"],
            scores=stored["scores"],
            encoded=stored["encoded"],
            reasons=tuple(map(str, stored["reasons"])),
            milliseconds=1000 * stored["seconds"],
            peak_bytes=int(stored["peak_bytes"]),
        )


def count_bytes(path: Path) -> int:
    """Return the size of a file, or of all files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _build_manifest(manifest: Manifest, target: Target, place: Path) -> dict[str, Any]:
    """Return the content of an export's manifest.json: that of labels.json, decision rules, versions and hashes."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    rules = manifest.model_dump(mode="json", include={"temperature", "conformal", "operating_point", "costs"})
    return {
        FORMAT_VERSION: CURRENT_FORMAT,
        "format": target.format,
        "quantization": target.quantization,
        **build_labels(manifest),
        **rules,
        "out_of_distribution": manifest.out_of_distribution and manifest.out_of_distribution.model_dump(mode="json"),
        "backbone": manifest.config.backbone,
        "weights_license": manifest.weights_license,
        "versions": {
            "imagetune": manifest.imagetune,
            "keras": keras.__version__,
            **{name: version(name) for name in _RUNTIMES[target.format] if name != "keras"},
        },
        "sha256": {
            "source": manifest.weights_sha256,
            **{path.relative_to(place.parent).as_posix(): compute_file_sha256(path) for path in files},
        },
    }
