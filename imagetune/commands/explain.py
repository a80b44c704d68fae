"""Saliency maps of a run's model for any images: Grad-CAM and occlusion sensitivity beside the image."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.core.files import write_text
from imagetune.core.messages import Say, say_nothing
from imagetune.data.loading.decode import load_image, resize_image
from imagetune.data.loading.targets import compute_median_class
from imagetune.data.sources.read import build_unreadable_error, find_images, require_no_overwrite
from imagetune.errors import BadImageError, RecipeError
from imagetune.evaluation.explain.saliency import SaliencyMap, compute_saliency
from imagetune.model.gradients import PASS_SIZE, SaliencyModel, split_for_saliency
from imagetune.model.inference import predict_probabilities
from imagetune.model.loaded import LoadedModel
from imagetune.reports.tiles import overlay_heat, scale_image, write_tile
from imagetune.runs.open import open_run

PANEL_PIXELS = 320
# A regression has no classes to explain: its two targets are what raises the number and what lowers it.
DIRECTIONS = ("higher", "lower")
_GAP = 8


@dataclass(frozen=True)
class Explanation:
    """The saliency of one image for one class, and the file that shows it.

    Attributes:
        path: The image.
        target: The class that is explained; for regression ``higher`` or ``lower``. None where the image can't be read.
        probability: The predicted probability of that class; None for regression.
        agreement: Spearman rank correlation of the Grad-CAM and the occlusion map, -1 to 1; None where it is not
            defined.
        file: The JPEG with the image, its Grad-CAM map and its occlusion map side by side.
        error: Why the image can't be read, or None.
        value: The predicted number of a regression, else None.
    """

    path: str
    target: str | None = None
    probability: float | None = None
    agreement: float | None = None
    file: str | None = None
    error: str | None = None
    value: float | None = None


@dataclass(frozen=True)
class _Source:
    """An image to explain: its name in messages, the file for its panels, and a function that returns its pixels."""

    name: str
    file: Path
    load: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class _Batch:
    """A batch of images for the model: ``images`` (n, height, width, 3) uint8, RGB."""

    images: NDArray[np.uint8]


def explain(
    run: str, paths: Sequence[str], *, out: Path, target: str | None = None, say: Say = say_nothing
) -> Iterator[Explanation]:
    """Yield the saliency of each image, and write a JPEG of the image, its Grad-CAM and its occlusion map.

    Args:
        run: A run folder, or a runs:/ or models:/ address.
        paths: Files, folders and patterns.
        out: Folder for the JPEGs; made where it isn't there.
        target: The class to explain; by default each image's predicted class. For regression ``higher`` (the default)
            or ``lower``.
        say: Receives what was passed over in folders, and why.

    Yields:
        An explanation of each image, in order; for one that can't be read, the reason.

    Raises:
        DataError: There is no image, one would be written over, or none can be read; the latter comes after the last
            explanation.
        RecipeError: The model has no such class.
        ResourceError: ``out`` can't be written.
    """
    _, loaded = open_run(run)
    readable = False
    for explanation in explain_images(loaded, paths, out=out, target=target, say=say):
        readable |= explanation.error is None
        yield explanation
    if not readable:
        raise build_unreadable_error()


def explain_images(
    loaded: LoadedModel,
    images: Sequence[str] | Sequence[NDArray[np.uint8]],
    *,
    out: Path,
    target: str | None = None,
    say: Say = say_nothing,
) -> Iterator[Explanation]:
    """Yield the saliency of each image for a model that is loaded already; otherwise as `explain`.

    If none of the images can be read, each has its error, and nothing is raised.

    Args:
        loaded: The model.
        images: Files, folders and patterns, or (h, w, 3) uint8 RGB arrays, whose paths are ``images[0]``, ...
        out: Folder for the panels.
        target: The class to explain.
        say: Receives what was passed over in folders, and why.
    """
    # Before the model is split and an image is read: a wrong class is a mistake on the command line.
    output = _find_output(loaded, target)
    split = split_for_saliency(loaded.model)
    sources = _list_sources(loaded, images, out, say)
    if not out.exists():
        # A folder of one's own images is never marked: they would vanish from the next training.
        write_text(out / run_files.WRITTEN, "imagetune doesn't read the images of this folder as data.\n")
    for first in range(0, len(sources), PASS_SIZE):
        yield from _explain_batch(loaded, split, sources[first : first + PASS_SIZE], output)


def _list_sources(
    loaded: LoadedModel, images: Sequence[str] | Sequence[NDArray[np.uint8]], out: Path, say: Say
) -> list[_Source]:
    arrays = [image for image in images if not isinstance(image, str)]
    if arrays:
        return [
            _Source(f"images[{index}]", out / f"image-{index}.jpg", partial(resize_image, image, loaded.image))
            for index, image in enumerate(arrays)
        ]
    paths = find_images([image for image in images if isinstance(image, str)], say=say)
    files = [out / name for name in _file_names(paths)]
    # The panels may go to the folder of the images, where a JPEG has the same name.
    require_no_overwrite(files, paths)
    return [
        _Source(path, file, partial(load_image, path, loaded.image, max_pixels=loaded.max_pixels))
        for path, file in zip(paths, files, strict=True)
    ]


def _find_output(loaded: LoadedModel, target: str | None) -> int | None:
    """Return the index of the model's output to explain, or of the direction of a regression; None for each prediction.

    Raises:
        RecipeError: The model has no such class.
    """
    if target is None:
        return None
    # As class names are written, whichever way the shell spells an umlaut.
    target = unicodedata.normalize("NFC", target)
    if loaded.task == "regression":
        if target not in DIRECTIONS:
            hint = f"this run predicts numbers: use {' or '.join(DIRECTIONS)}"
            raise RecipeError(f"the model has no class {target!r}", where="--class", hint=hint)
        return DIRECTIONS.index(target)
    if target not in loaded.class_names:
        hint = f"its classes are {', '.join(loaded.class_names[:20])}"
        raise RecipeError(f"the model has no class {target!r}", where="--class", hint=hint)
    return loaded.class_names.index(target)


def _file_names(images: Sequence[str]) -> list[str]:
    """Return a file name for each image: its own stem, numbered where several images share it."""
    # Images of different folders may share a name, and all files go into one folder.
    seen: dict[str, int] = {}
    names = []
    for image in images:
        stem = Path(image).stem
        seen[stem] = seen.get(stem, 0) + 1
        names.append(f"{stem}.jpg" if seen[stem] == 1 else f"{stem}-{seen[stem]}.jpg")
    return names


def _explain_batch(
    loaded: LoadedModel, split: SaliencyModel, sources: Sequence[_Source], output: int | None
) -> Iterator[Explanation]:
    images, errors = [], {}
    for source in sources:
        try:
            images.append(source.load())
        except BadImageError as error:
            errors[source.name] = Explanation(source.name, error=error.what)
    stacked = np.stack(images) if images else np.zeros((0, loaded.image.height, loaded.image.width, 3), np.uint8)
    # A batch of unreadable images is empty, which no model takes.
    batches = [_Batch(stacked)] if images else []
    probabilities = predict_probabilities(loaded.model, batches, tta=loaded.tta)
    numbers = loaded.task == "regression"
    targets = _predicted_classes(loaded, probabilities) if output is None or numbers else np.full(len(images), output)
    # Saliency of a number shows what raises it; the opposite map shows what lowers it, without a second pass.
    found = iter(zip(stacked, compute_saliency(split, stacked, targets[:, None]), probabilities, strict=True))
    for source in sources:
        if source.name in errors:
            yield errors[source.name]
            continue
        image, (saliency,), row = next(found)
        saliency = saliency.opposite if numbers and output else saliency
        yield Explanation(
            path=source.name,
            target=DIRECTIONS[saliency.against] if numbers else loaded.class_names[saliency.target],
            probability=None if numbers else float(row[saliency.target]),
            agreement=saliency.agreement,
            file=_write_panels(image, saliency, source.file),
            value=float(row[saliency.target]) if numbers else None,
        )


def _predicted_classes(loaded: LoadedModel, probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the predicted class (n,) int64 of each image, by the same rule as `imagetune predict`."""
    if loaded.task == "ordinal":
        return compute_median_class(probabilities)
    likeliest: NDArray[np.int64] = probabilities.argmax(axis=1).astype(np.int64)
    return likeliest


def _write_panels(image: NDArray[np.uint8], saliency: SaliencyMap, file: Path) -> str:
    """Write the image and its two saliency maps side by side, and return the file's path."""
    panel = scale_image(image, PANEL_PIXELS)
    gap = np.full((len(panel), _GAP, 3), 255, np.uint8)
    panels = [panel, gap, overlay_heat(panel, saliency.grad_cam), gap, overlay_heat(panel, saliency.occlusion)]
    write_tile(np.concatenate(panels, axis=1), file.parent, file.name)
    return str(file)
