"""Whether an export may be served: what its certificate says, and whether its file is the one that was certified."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

from imagetune.core.documents import HINT, SURPRISES, check_format_version
from imagetune.core.files import compute_file_sha256, read_json_object
from imagetune.errors import ModelFileError
from imagetune.export.formats import MODEL_NAMES

MANIFEST = "manifest.json"
_PARITY = "parity.json"
_ACCEPTED = ("equal", "non-inferior")
_SERVED = ("litert", "onnx")


def is_export(folder: Path) -> bool:
    """Return whether a folder is one of `imagetune export`."""
    return (folder / MANIFEST).is_file() and (folder / _PARITY).is_file()


def read_export(folder: Path) -> dict[str, Any]:
    """Return the description of an export whose predictions were shown not to be worse than its run's.

    Raises:
        ModelFileError: It isn't what imagetune writes, was refused, or its model was changed since.
    """
    try:
        about, parity = read_json_object(folder / MANIFEST), read_json_object(folder / _PARITY)
        check_format_version(about, folder / MANIFEST)
        verdict, format_name, hashes = parity["verdict"], about["format"], dict(about["sha256"])
        files = {name: folder / _require_inside(name) for name in hashes if name != "source"}
        place = MODEL_NAMES[format_name]
    except (OSError, *SURPRISES) as error:
        raise ModelFileError(f"is no export that can be read: {error}", where=str(folder), hint=HINT) from error
    if format_name not in _SERVED:
        # TensorFlow runs whatever a SavedModel's graph says, reading and writing files among it.
        hint = "serve the run itself, or an export as litert or onnx"
        raise ModelFileError(
            f"exports as {format_name} are not served: their graph may run anything", where=str(folder), hint=hint
        )
    if verdict not in _ACCEPTED:
        what = f"was refused when it was exported: its predictions are {verdict}"
        raise ModelFileError(what, where=str(folder), hint="serve the run itself, or export it otherwise")
    if not any(name.split("/")[0] == place for name in files):
        raise ModelFileError(f"says nothing of its {place}", where=str(folder), hint=HINT)
    if others := [name for name in MODEL_NAMES.values() if name != place and (folder / name).exists()]:
        what = f"holds another model, {others[0]}, which was not compared"
        raise ModelFileError(what, where=str(folder), hint="remove it, or export into a folder of its own")
    for name, file in files.items():
        if not file.is_file() or compute_file_sha256(file) != hashes[name]:
            raise ModelFileError(
                f"{name} is missing or was changed since it was compared", where=str(folder), hint=HINT
            )
    return about


def _require_inside(name: str) -> str:
    """Return a file's name in a folder, unless it leads out of that.

    Raises:
        ValueError: It does.
    """
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{name!r} leads out of the folder")
    return name


def describe_export(folder: Path) -> dict[str, Any]:
    """Return what a server says of an export: its id, and how its predictions differ from those of its run.

    Raises:
        ModelFileError: As from `read_export`.
    """
    about = read_export(folder)
    parity = read_json_object(folder / _PARITY)
    kept = ("format", "quantization", "split", "images", "verdict", "label_agreement", "max_difference", "accuracy")
    return {
        "id": folder.resolve().name,
        "version": f"{str(about['sha256']['source'])[:12]}-{about['format']}-{about['quantization']}",
        "split": None,
        "metrics": {},
        "card": None,
        "export": {name: parity.get(name) for name in kept},
    }
