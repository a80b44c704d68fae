"""How a model does on corrupted versions of its own test images, by the protocol of Hendrycks and Dietterich (2019)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from imagetune.core import run_files
from imagetune.data.loading.decode import load_image
from imagetune.data.loading.pipeline import Batch, evaluation_batches
from imagetune.data.sources.labels import label_rule
from imagetune.data.sources.records import Record
from imagetune.evaluation.context import Examined, TileWriter
from imagetune.evaluation.predictions import Predictions, predictions_of
from imagetune.evaluation.robustness.corruptions import COMMON, EXTRA, corrupt
from imagetune.evaluation.robustness.metrics import Cell, resampling, robustness_metrics, sums_of
from imagetune.model.fold_batch_norm import folded
from imagetune.model.inference import predict_probabilities
from imagetune.recipe.data import DataConfig
from imagetune.recipe.evaluate import Corruption, EvaluateConfig, RobustnessConfig

if TYPE_CHECKING:
    import keras

Progress: TypeAlias = Callable[[int, int], None]

TILE_PIXELS = 144
_SHOWN_SEVERITY = 3
_SHOWN_IMAGES = 2


@dataclass(frozen=True)
class Subject:
    """The model that is tested on corrupted images, and how it is tested.

    Attributes:
        model: Raw images to predictions.
        data: How the images and labels are read.
        evaluate: How intervals are made; its own ``robustness`` is not looked at.
        seed: Of everything that is drawn at random.
        batch_size: Images a forward pass, about.
        config: How it is tested.
        class_names: In the order of the model's outputs.
        thresholds: Of multi_label.
        root: Paths of images are told relative to it.
        tiles: Takes the images of the report.
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
    """Images that go through the model together: ``images`` (b, height, width, 3) uint8, RGB."""

    images: NDArray[np.uint8]


def robustness_part(run: Examined) -> dict[str, Any] | None:
    """Return the part ``robustness`` of evaluation.json where the recipe asks for it and there are test images."""
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
    """Test a model on corrupted images, and write a sheet of them into the run folder.

    The corruption is done to the decoded image at the model's size. Clean metrics are those of the same images.

    Args:
        subject: What is tested.
        records: Test images; those with a label that the model doesn't know are left out.
        progress: Called with how many images the model has been given, and how many it gets in all.

    Returns:
        Plain JSON values: ``images``, ``severities``, ``TTA transforms``, the metrics of `robustness_metrics`, and
        ``sheet``; None where no image can be tested.

    Raises:
        DataError: An image can't be read any more.
    """
    # Drawn once: every corruption is tested on the same images, so that differences between them are theirs.
    chosen = draw_images(records, subject)
    if not chosen:
        return None
    cells = _cells(subject.config)
    clean, *predictions = _predictions(subject, chosen, cells, progress)
    corrupted = dict(zip(cells, predictions, strict=True))
    drawn = resampling(clean, [record.group for record in chosen], subject.evaluate, seed=subject.seed)
    return {
        "images": len(chosen),
        "severities": sorted(set(subject.config.severities)),
        "tta": list(subject.evaluate.tta),
        **robustness_metrics(clean, corrupted, drawn),
        "sheet": _write_sheet(subject, clean, corrupted),
    }


def draw_images(records: Sequence[Record], subject: Subject) -> list[Record]:
    """Return the images that are tested, in their order: at random, with equal shares of every class.

    A class with fewer images gives all it has. Images with several labels and numbers have no classes to balance.
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


def corruption_seed(seed: int, position: int) -> tuple[int, int]:
    """Return what decides about chance in the corruption of the image at a position of those tested."""
    return seed, position


def _cells(config: RobustnessConfig) -> list[Cell]:
    names: Sequence[Corruption] = (*COMMON, *EXTRA) if config.corruptions == "all" else config.corruptions
    return [(name, severity) for name in dict.fromkeys(names) for severity in sorted(set(config.severities))]


def _predictions(
    subject: Subject, chosen: Sequence[Record], cells: Sequence[Cell], progress: Progress | None
) -> Iterator[Predictions]:
    """Yield the predictions to the clean images, and then to those of each cell."""
    data, count = subject.data, len(chosen)
    # As few batches as that size gives, all about equally full: a smaller last one would be filled up.
    batch_size = -(-count // -(-count // subject.batch_size))
    with evaluation_batches(
        chosen,
        subject.class_names,
        image=data.image,
        batch_size=batch_size,
        workers=0,
        max_pixels=data.max_pixels,
    ) as batches:
        versions = _counted(_versions(batches, cells, subject.seed), count * (1 + len(cells)), progress)
        rows = predict_probabilities(folded(subject.model), versions, tta=subject.evaluate.tta)
    # They come batch by batch, and of each batch version by version.
    parts: list[list[NDArray[np.float32]]] = [[] for _ in range(1 + len(cells))]
    first = 0
    for start in range(0, count, batch_size):
        held = min(batch_size, count - start)
        for part in parts:
            part.append(rows[first : first + held])
            first += held
    for part in parts:
        yield predictions_of(
            [record.path for record in chosen],
            [record.label for record in chosen],
            np.concatenate(part).astype(np.float64),
            subject.class_names,
            rule=label_rule(data),
            thresholds=subject.thresholds,
        )


def _versions(batches: Iterable[Batch], cells: Sequence[Cell], seed: int) -> Iterator[Corrupted]:
    """Yield each batch as it is, and corrupted in the way of each cell."""
    for batch in batches:
        seeds = [corruption_seed(seed, int(position)) for position in batch.indices]
        yield Corrupted(batch.images)
        for name, severity in cells:
            images = zip(batch.images, seeds, strict=True)
            yield Corrupted(np.stack([corrupt(image, name, severity, seed=own) for image, own in images]))


def _counted(versions: Iterable[Corrupted], total: int, progress: Progress | None) -> Iterator[Corrupted]:
    """Yield the same and tell how many images are done."""
    done = 0
    for version in versions:
        yield version
        done += len(version.images)
        if progress is not None:
            progress(done, total)


def _write_sheet(subject: Subject, clean: Predictions, corrupted: Mapping[Cell, Predictions]) -> dict[str, Any]:
    """Write one or two images under each corruption into the run folder; return what is on them."""
    severities = sorted({severity for _, severity in corrupted})
    severity = _SHOWN_SEVERITY if _SHOWN_SEVERITY in severities else severities[len(severities) // 2]
    # An earlier test may have had other corruptions, whose images would stay behind.
    subject.tiles.clear(run_files.ROBUSTNESS)
    shown = {name: predictions for (name, found), predictions in corrupted.items() if found == severity}
    images = [
        _write_image(subject, index, number, clean, shown, severity)
        for number, index in enumerate(_typical(clean), start=1)
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
    data, path = subject.data, Path(clean.paths[index])
    image = load_image(str(path), data.image, max_pixels=data.max_pixels)
    seed = corruption_seed(subject.seed, index)

    def tile(image: NDArray[np.uint8], name: str, predictions: Predictions) -> dict[str, str]:
        file = subject.tiles.write(image, f"{run_files.ROBUSTNESS}/{number}-{name}.jpg", pixels=TILE_PIXELS)
        return {"name": name, "file": file, "prediction": predictions.rule.told(list(predictions.texts())[index][1])}

    return {
        "path": path.relative_to(subject.root).as_posix() if path.is_relative_to(subject.root) else str(path),
        "true": clean.rule.told(list(clean.texts())[index][0]),
        "clean": tile(image, "clean", clean),
        "corrupted": [
            tile(corrupt(image, name, severity, seed=seed), name, predictions) for name, predictions in shown.items()
        ],
    }


def _typical(clean: Predictions) -> list[int]:
    """Return which images are shown: of different classes, those first that were predicted right."""
    sums = sums_of(clean)
    if clean.rule.task == "regression":
        order = np.argsort(sums.over, kind="stable")
    elif clean.rule.task == "multi_label":
        order = np.argsort(sums.over < sums.under, kind="stable")
    else:
        rightly_first = np.argsort(sums.over < sums.under, kind="stable")
        _, first = np.unique(clean.labels[rightly_first], return_index=True)
        order = rightly_first[np.sort(first)]
    return [int(index) for index in order[:_SHOWN_IMAGES]]
