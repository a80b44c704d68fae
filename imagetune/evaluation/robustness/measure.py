"""Robustness test of a model: its predictions on corrupted versions of its test images (Hendrycks and Dietterich)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.data.loading.decode import load_image
from imagetune.data.loading.pipeline import Batch, load_evaluation_batches
from imagetune.data.sources.labels import build_label_rule
from imagetune.data.sources.records import Record
from imagetune.evaluation.context import EvaluationContext, TileWriter
from imagetune.evaluation.predictions import Predictions, build_predictions, make_relative_path
from imagetune.evaluation.robustness.corruptions import COMMON, EXTRA, corrupt
from imagetune.evaluation.robustness.metrics import Cell, compute_robustness_metrics, compute_sums, draw_resampling
from imagetune.model.fold_batch_norm import fold_batch_norm_layers
from imagetune.model.inference import predict_probabilities
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.evaluate import Corruption, EvaluateConfig, RobustnessConfig

if TYPE_CHECKING:
    import keras

Progress: TypeAlias = Callable[[int, int], None]

TILE_PIXELS = 144
_SHOWN_SEVERITY = 3
_SHOWN_IMAGES = 2


@dataclass(frozen=True)
class Subject:
    """The model under a robustness test, with the test's settings.

    Attributes:
        model: Model from raw images to predictions.
        data: The recipe's data section: how images and labels are read.
        evaluate: The recipe's evaluate section, for the intervals; its ``robustness`` is ignored in favour of
            ``config``.
        seed: Seed of everything that is drawn at random.
        batch_size: About how many images are in a forward pass.
        config: Corruptions, severities and number of images.
        class_names: Class names in the order of the model's outputs.
        thresholds: Thresholds of the labels (multi_label).
        root: Folder that paths of images are written relative to.
        tiles: Writer of images for the report.
    """

    model: keras.Model
    data: DataConfig
    evaluate: EvaluateConfig
    seed: int
    batch_size: int
    config: RobustnessConfig
    class_names: tuple[str, ...]
    thresholds: tuple[float, ...]
    root: Path
    tiles: TileWriter


@dataclass(frozen=True)
class Corrupted:
    """A batch of clean or corrupted images for the model: ``images`` (b, height, width, 3) uint8, RGB."""

    images: NDArray[np.uint8]


def analyse_robustness(run: EvaluationContext) -> dict[str, Any] | None:
    """Return the analysis ``robustness`` of evaluation.json; None if it isn't asked for, or without a test split."""
    config, split = run.evaluate.robustness, run.splits.get("test")
    if config is None or split is None:
        return None
    known = split.predictions
    subject = Subject(
        model=run.model,
        data=run.data,
        evaluate=run.evaluate,
        seed=run.seed,
        batch_size=run.batch_size,
        config=config,
        class_names=known.class_names,
        thresholds=tuple(known.thresholds),
        root=run.root,
        tiles=run.tiles,
    )
    return measure_robustness(subject, split.records)


def measure_robustness(
    subject: Subject, records: Sequence[Record], *, progress: Progress | None = None
) -> dict[str, Any] | None:
    """Return the metrics of a model on corrupted images, and write example images into the run folder.

    The decoded image is corrupted at the model's input size. Clean metrics are those of the same images.

    Args:
        subject: The model and the settings.
        records: Test images; those with a label that the model doesn't know are left out.
        progress: Called with the number of images that the model has predicted, and their total.

    Returns:
        JSON values: ``images``, ``severities``, ``tta``, the metrics of `compute_robustness_metrics`, and ``sheet``;
        None where no image can be tested.

    Raises:
        DataError: An image can't be read any more.
    """
    # Drawn once: all corruptions are tested on the same images, so that their differences aren't those of images.
    chosen = draw_images(records, subject)
    if not chosen:
        return None
    cells = _list_cells(subject.config)
    clean, *predictions = _predict_cells(subject, chosen, cells, progress)
    corrupted = dict(zip(cells, predictions, strict=True))
    drawn = draw_resampling(clean, [record.group for record in chosen], subject.evaluate, seed=subject.seed)
    return {
        "images": len(chosen),
        "severities": sorted(set(subject.config.severities)),
        "tta": list(subject.evaluate.tta),
        **compute_robustness_metrics(clean, corrupted, drawn),
        "sheet": _write_sheet(subject, clean, corrupted),
    }


def draw_images(records: Sequence[Record], subject: Subject) -> list[Record]:
    """Return a random sample of the test images, balanced by class, in their order.

    A class with too few images gives all it has. For multi_label and regression there are no classes to balance.
    """
    several = subject.data.task in ("multi_label", "regression")
    members: dict[str, list[int]] = {}
    for index, record in enumerate(records):
        if several or record.label in subject.class_names:
            members.setdefault("" if several else record.label, []).append(index)
    generator = np.random.default_rng(subject.seed)
    # In turns: one image of every class, then another of every class.
    turns = [(turn, index) for found in members.values() for turn, index in enumerate(generator.permutation(found))]
    chosen = sorted(int(index) for _, index in sorted(turns)[: subject.config.images])
    return [records[index] for index in chosen]


def make_corruption_seed(seed: int, position: int) -> tuple[int, int]:
    """Return the random seed of the corruptions of the image at a position among those tested."""
    return seed, position


def _list_cells(config: RobustnessConfig) -> list[Cell]:
    names: Sequence[Corruption] = (*COMMON, *EXTRA) if config.corruptions == "all" else config.corruptions
    return [(name, severity) for name in dict.fromkeys(names) for severity in sorted(set(config.severities))]


def _predict_cells(
    subject: Subject, chosen: Sequence[Record], cells: Sequence[Cell], progress: Progress | None
) -> Iterator[Predictions]:
    """Yield the predictions for the clean images, then for the corrupted images of each cell."""
    data, count = subject.data, len(chosen)
    # Batches of about equal size: a small last one would be padded to the full size and waste time.
    batch_size = -(-count // -(-count // subject.batch_size))
    with load_evaluation_batches(
        chosen,
        subject.class_names,
        image=data.image,
        batch_size=batch_size,
        workers=0,
        max_pixels=data.max_pixels,
    ) as batches:
        versions = _report_progress(_corrupt_batches(batches, cells, subject.seed), count * (1 + len(cells)), progress)
        rows = predict_probabilities(fold_batch_norm_layers(subject.model), versions, tta=subject.evaluate.tta)
    # The rows come batch by batch, within a batch version by version: each image is decoded only once.
    versions_rows: list[list[NDArray[np.float32]]] = [[] for _ in range(1 + len(cells))]
    first = 0
    for start in range(0, count, batch_size):
        held = min(batch_size, count - start)
        for version_rows in versions_rows:
            version_rows.append(rows[first : first + held])
            first += held
    for version_rows in versions_rows:
        yield build_predictions(
            [record.path for record in chosen],
            [record.label for record in chosen],
            np.concatenate(version_rows).astype(np.float64),
            subject.class_names,
            rule=build_label_rule(data),
            thresholds=subject.thresholds,
        )


def _corrupt_batches(batches: Iterable[Batch], cells: Sequence[Cell], seed: int) -> Iterator[Corrupted]:
    """Yield each batch clean, and then corrupted by each cell's corruption and severity."""
    for batch in batches:
        seeds = [make_corruption_seed(seed, int(position)) for position in batch.indices]
        yield Corrupted(batch.images)
        for name, severity in cells:
            images = zip(batch.images, seeds, strict=True)
            yield Corrupted(np.stack([corrupt(image, name, severity, seed=own) for image, own in images]))


def _report_progress(versions: Iterable[Corrupted], total: int, progress: Progress | None) -> Iterator[Corrupted]:
    """Yield the same batches, and report after each how many images are done."""
    done = 0
    for version in versions:
        yield version
        done += len(version.images)
        if progress is not None:
            progress(done, total)


def _write_sheet(subject: Subject, clean: Predictions, corrupted: Mapping[Cell, Predictions]) -> dict[str, Any]:
    """Write example images under each corruption into the run folder, and return their files and predictions."""
    severities = sorted({severity for _, severity in corrupted})
    severity = _SHOWN_SEVERITY if _SHOWN_SEVERITY in severities else severities[len(severities) // 2]
    # An earlier test may have had other corruptions, whose images would stay behind.
    subject.tiles.clear(run_files.ROBUSTNESS)
    shown = {name: predictions for (name, found), predictions in corrupted.items() if found == severity}
    images = [
        _write_image(subject, index, number, clean, shown, severity)
        for number, index in enumerate(_choose_examples(clean), start=1)
    ]
    return {"severity": severity, "images": images}


def _write_image(
    subject: Subject,
    index: int,
    number: int,
    clean: Predictions,
    shown: Mapping[Corruption, Predictions],
    severity: int,
) -> dict[str, Any]:
    data, path = subject.data, clean.paths[index]
    image = load_image(path, data.image, max_pixels=data.max_pixels)
    # The seed of the test, so that the tile is what the model was shown.
    seed = make_corruption_seed(subject.seed, index)

    def tile(image: NDArray[np.uint8], name: str, predictions: Predictions) -> dict[str, str]:
        file = subject.tiles.write(image, f"{run_files.ROBUSTNESS}/{number}-{name}.jpg", pixels=TILE_PIXELS)
        return {
            "name": name,
            "file": file,
            "prediction": predictions.rule.describe(list(predictions.texts())[index][1]),
        }

    return {
        "path": make_relative_path(path, subject.root),
        "true": clean.rule.describe(list(clean.texts())[index][0]),
        "clean": tile(image, "clean", clean),
        "corrupted": [
            tile(corrupt(image, name, severity, seed=seed), name, predictions) for name, predictions in shown.items()
        ],
    }


def _choose_examples(clean: Predictions) -> list[int]:
    """Return the indices of the images to show: of different classes, correctly predicted ones first."""
    sums = compute_sums(clean)
    if clean.rule.task == "regression":
        order = np.argsort(sums.over, kind="stable")
    elif clean.rule.task == "multi_label":
        order = np.argsort(sums.over < sums.under, kind="stable")
    else:
        rightly_first = np.argsort(sums.over < sums.under, kind="stable")
        _, first = np.unique(clean.labels[rightly_first], return_index=True)
        order = rightly_first[np.sort(first)]
    return [int(index) for index in order[:_SHOWN_IMAGES]]
