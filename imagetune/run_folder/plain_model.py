"""What plain Keras needs beside ``model.keras``: ``predict.py``, which runs without imagetune, and ``labels.json``."""

from __future__ import annotations

from pathlib import Path

from imagetune.core import run_files
from imagetune.core.files import write_json, write_text
from imagetune.model.manifest import Manifest, read_manifest
from imagetune.run_folder.folder import RunFolder

SCRIPT = Path(__file__).with_name("plain_predict.py")
"""The script itself, which each run gets as predict.py: a module, so that it is checked like any other."""


def write_plain_predict(folder: RunFolder) -> None:
    """Write ``predict.py`` and ``labels.json`` beside a run's ``model.keras``.

    Raises:
        ModelFileError: The run has no manifest yet.
        ResourceError: The disk is full.
    """
    write_json(folder.path / run_files.LABELS, build_labels(read_manifest(folder.model)))
    write_text(folder.path / run_files.PREDICT_SCRIPT, SCRIPT.read_text(encoding="utf-8"))


def build_labels(manifest: Manifest) -> dict[str, object]:
    """Return the content of ``labels.json``: what a model's outputs are called, and how an image becomes its input."""
    return {
        "task": manifest.task,
        "class_names": list(manifest.class_names),
        "thresholds": list(manifest.thresholds or (0.5,) * len(manifest.class_names)),
        "separator": manifest.label_separator,
        "size": [manifest.image.height, manifest.image.width],
        "resize": manifest.image.resize,
        "background": list(manifest.image.background),
        # predict.py leaves it out, as model.keras alone does; `imagetune predict` averages over it.
        "test_time_augmentation": list(manifest.tta),
    }
