"""The folder of an export: the model, manifest.json, example.py and README.md, and what the example predicts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.core.files import compute_file_sha256, write_json, write_text
from imagetune.errors import ModelFileError
from imagetune.export.formats import Target
from imagetune.export.litert import write_litert
from imagetune.export.onnx import write_onnx
from imagetune.export.saved_model import write_saved_model
from imagetune.model.manifest import LoadedModel, Manifest
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
        encoded: Of a SavedModel, (n, k) outputs of its signature for image files; else (0, k).
        reasons: (n,) why an image can't be read; empty for the others.
        milliseconds: Of each timed call with one image.
        peak_bytes: Largest memory of the process.
    """

    outputs: NDArray[np.float64]
    encoded: NDArray[np.float64]
    reasons: tuple[str, ...]
    milliseconds: NDArray[np.float64]
    peak_bytes: int


def write_export(
    loaded: LoadedModel, manifest: Manifest, target: Target, folder: Path, calibration: NDArray[np.uint8]
) -> None:
    """Fill an empty folder with the export of a model.

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
        write_saved_model(loaded.model, place, loaded.image)
    elif target.format == "litert":
        with tempfile.TemporaryDirectory(prefix="imagetune-litert-") as name:
            between = Path(name) / "saved_model"
            write_saved_model(loaded.model, between, loaded.image)
            write_litert(between, place, target.quantization, calibration)
    else:
        write_onnx(loaded.model, place, target.quantization, calibration)
    write_json(folder / MANIFEST, _build_manifest(manifest, target, place))
    write_text(folder / EXAMPLE, SCRIPT.read_text(encoding="utf-8"))
    write_text(folder / README, _write_readme(manifest, target))


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
        "format": target.format,
        "quantization": target.quantization,
        **build_labels(manifest),
        **rules,
        # Its score is made of what the export doesn't give: logits or features.
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


def _write_readme(manifest: Manifest, target: Target) -> str:
    packages = " ".join(_RUNTIMES[target.format])
    size = f"{manifest.image.height} x {manifest.image.width}"
    tta = (
        "\nThe run averages over transformed copies (test-time augmentation); this model alone doesn't.\n"
        if manifest.tta
        else ""
    )
    encoded = (
        "\nThe signature `serving_default` takes images, and `encoded` takes the bytes of image files, as TensorFlow"
        "\nServing gives them. The latter doesn't turn images by their EXIF orientation.\n"
        if target.format == "saved_model"
        else ""
    )
    return f"""\
# {manifest.config.backbone}, {len(manifest.class_names)} outputs, as {target.name}

It takes RGB images of {size} pixels, 0 to 255, and normalises them itself. Without imagetune:

    pip install numpy {packages}
    python example.py IMAGE...

or in Python, in this folder:

    import json
    from pathlib import Path
    import example
    labels = json.loads(Path("manifest.json").read_text())
    predict = example.open_model(Path("."))
    image = example.load_image("image.jpg", labels)
    outputs = predict(image[None])[0]
    print(example.name_label(outputs, labels), outputs.max())
{encoded}{tta}
`manifest.json` has the labels, how images are read, thresholds, the temperature of the calibration and the hashes.
`parity.html` and `parity.json` say how its predictions differ from those of the Keras model on the same images. The
licence of the weights that training started from: {manifest.weights_license or "unknown"}.
"""
