"""The one test of a run, after all choices: predictions for every split, and every metric with its interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import psutil

from imagetune.core.files import read_json_lines
from imagetune.core.messages import Say
from imagetune.core.text import format_count, format_list
from imagetune.data.audit.image_statistics import Inspection
from imagetune.data.audit.inspection import inspect_images
from imagetune.data.audit.near_duplicates import find_duplicate_groups
from imagetune.data.findings import Finding
from imagetune.data.sources.labels import build_label_rule
from imagetune.data.sources.read import read_catalog
from imagetune.data.sources.records import Record
from imagetune.data.splits.groups import group_records
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits
from imagetune.errors import DataError
from imagetune.evaluation.context import EvaluatedSplit, EvaluationContext
from imagetune.evaluation.document import build_evaluation_document, evaluate_split
from imagetune.evaluation.parts import run_analyses
from imagetune.evaluation.predictions import Predictions, build_predictions, predict_records, write_predictions
from imagetune.evaluation.statistics.verdict import TrainingCourse
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import POOLING
from imagetune.model.inference import predict_probabilities
from imagetune.model.manifest import read_manifest
from imagetune.model.split_model import SplitModel, split_model_at
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.train import TrainConfig
from imagetune.reports.tiles import RunTiles
from imagetune.run_folder.folder import RunFolder
from imagetune.runs.lineage import find_leaked_images
from imagetune.training.feature_cache.features import FeatureBatch, caches_features, compute_plain_features
from imagetune.training.setup.job import TrainingImages

# Features of a split are kept in memory only up to this share of what is free: the model and the batches need room.
_MEMORY_SHARE = 0.25
# Findings about images that never become records, and why.
_LOST = {"stray-image": "outside the class folders", "name-not-utf8": "its name is not valid UTF-8"}
# A validation loss that ends this many times above its lowest has risen; epochs differ by a few percent anyway.
_RISEN = 1.1


@dataclass(frozen=True)
class ModelOrigin:
    """Where a model's weights are from, as evaluation.json says.

    Attributes:
        refit: Whether the model has learned from the validation images, so that their predictions are from before that.
        best_epoch: The epoch whose weights the model has; None where they are of no single one.
    """

    refit: bool = False
    best_epoch: int | None = None


def evaluate_splits(
    folder: RunFolder,
    model: keras.Model,
    recipe: Recipe,
    splits: Splits,
    *,
    say: Say,
    val: Predictions | None = None,
    images: TrainingImages | None = None,
    origin: ModelOrigin | None = None,
) -> dict[str, Any]:
    """Predict every split once, compute every metric, and return the content of evaluation.json.

    All splits are predicted with the recipe's test-time augmentation, so that their metrics can be compared.

    Args:
        folder: The run folder, with the model's manifest.
        model: The model that ``write_model`` has written.
        recipe: The run's recipe.
        splits: The images; those of the test split are opened here and nowhere else in a run.
        say: Receives the names of the splits when all is done.
        val: The validation predictions where ``write_model`` has made them already.
        images: The images of training and validation, with the cache of decoded images.
        origin: Where the model's weights are from.
    """
    sides = {"train": splits.train, "val": splits.val, "test": open_holdout(splits)}
    thresholds = read_manifest(folder.model).thresholds
    images = images or TrainingImages(splits.train, splits.val, splits.class_names, recipe.data)
    # The features serve the predictions and the analyses: without test-time augmentation each image goes through the
    # backbone once.
    halves = _cut_model(model, recipe)
    examined: dict[str, EvaluatedSplit] = {}
    for name, records in sides.items():
        if not records:
            continue
        # `write_model` has predicted validation before there were thresholds.
        known = replace(val, thresholds=thresholds) if name == "val" and val is not None else None
        examined[name] = _examine(model, halves, records, recipe, images, thresholds=thresholds, known=known)
        write_predictions(examined[name].predictions, folder.predictions(name), root=splits.root)
    document = build_evaluation_document(
        {
            name: evaluate_split(
                split.predictions, config=recipe.evaluate, seed=recipe.seed, groups=list_groups(split.records)
            )
            for name, split in examined.items()
        },
        config=recipe.evaluate,
        seen=_describe_leaks(folder, recipe, splits, images.hashes),
        course=describe_course(recipe.train, _read_lines(folder.metrics), _read_lines(folder.stages)),
    ) | asdict(origin or ModelOrigin())
    # Written before the diagnoses, which take longest: the metrics stay, whatever happens to the rest.
    folder.write_evaluation(document)
    document |= run_analyses(_build_context(folder, model, recipe, examined, splits.root))
    folder.write_evaluation(document)
    say("evaluated", ", ".join(examined))
    return document


def _describe_leaks(
    folder: RunFolder, recipe: Recipe, splits: Splits, hashes: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the test images that leaked as JSON values; None where none did."""
    leaked = find_leaked_images(folder, recipe, open_holdout(splits), hashes)
    return leaked.to_dict() if leaked.paths else None


def _read_lines(path: Path) -> Sequence[Mapping[str, Any]]:
    return read_json_lines(path) if path.is_file() else ()


def describe_course(
    train: TrainConfig, epochs: Sequence[Mapping[str, Any]], stages: Sequence[Mapping[str, Any]]
) -> TrainingCourse:
    """Return how a model was trained, for the verdict on over-fitting.

    Args:
        train: Settings of the training, with the stages alone that have made the model.
        epochs: Lines of metrics.jsonl.
        stages: Lines of stages.jsonl.
    """
    last = [line for line in epochs if line.get("stage") == train.stages[-1].name]
    losses = [line["val"]["loss"] for line in last if (line.get("val") or {}).get("loss") is not None]
    rose = losses[-1] > _RISEN * min(losses) if len(losses) > 2 else None
    # The last word of a stage that was gone on with counts.
    kept = {line["name"]: line["judged"]["kept"] for line in stages if "judged" in line}
    return TrainingCourse(not train.trains_backbone, rose, tuple(name for name, was in kept.items() if not was))


def _build_context(
    folder: RunFolder, model: keras.Model, recipe: Recipe, examined: Mapping[str, EvaluatedSplit], root: Path
) -> EvaluationContext:
    """Return what the analyses of evaluation.json may look at."""
    return EvaluationContext(
        model=model,
        data=recipe.data,
        evaluate=recipe.evaluate,
        seed=recipe.seed,
        batch_size=recipe.evaluation_batch_size,
        backbone=recipe.model.backbone,
        fine_tuned=recipe.train.trains_backbone,
        splits=examined,
        root=root,
        folder=folder.path,
        tiles=RunTiles(folder.path),
    )


def predict_labelled(
    model: keras.Model,
    records: Sequence[Record],
    class_names: tuple[str, ...],
    recipe: Recipe,
    *,
    thresholds: Sequence[float] = (),
    images: TrainingImages | None = None,
) -> Predictions:
    """Return a model's predictions for labelled images, with the recipe's image settings and test-time augmentation.

    Args:
        model: The run's model.
        records: The labelled images.
        class_names: The class of each of the model's outputs.
        recipe: The run's recipe.
        thresholds: Decision thresholds of the classes, for multi_label.
        images: The images of the training, whose cache of decoded images is used where it is given.
    """
    return predict_records(
        model,
        records,
        class_names,
        image=recipe.data.image,
        batch_size=recipe.evaluation_batch_size,
        workers=recipe.data.workers,
        max_pixels=recipe.data.max_pixels,
        tta=recipe.evaluate.tta,
        rule=build_label_rule(recipe.data),
        thresholds=thresholds,
        cache=images.caches.open_cache(recipe.data) if images else None,
    )


def list_groups(records: Sequence[Record]) -> list[str | None]:
    """Return the group of each image, by which confidence intervals are resampled; None where it has none."""
    return [record.group for record in records]


def read_labelled_records(
    path: Path, config: DataConfig, class_names: Sequence[str]
) -> tuple[tuple[Record, ...], dict[str, str]]:
    """Return the labelled images of another folder or table, laid out like the recipe's own.

    Args:
        path: The folder or table.
        config: The data section of the recipe.
        class_names: The classes that the model knows.

    Returns:
        The usable images, with near-duplicates as groups; path and reason of those that are left out: they can't be
        decoded, their class is unknown to the model, or the source can't give them a label.

    Raises:
        DataError: There is no such source, no image can be used, or one can't and ``data.on_bad_image`` is ``error``.
    """
    # Other images need not have the columns that the recipe's own are sliced by.
    columns = config.columns.model_copy(update={"slices": ()})
    changes: dict[str, object] = {"source": str(path.absolute()), "columns": columns}
    if config.task == "single_label":
        # All classes are read, so that those which the model doesn't know can be named.
        changes["classes"] = None
    config = config.model_copy(update=changes)
    catalog = read_catalog(config, min_classes=1)
    # Each file is opened once, however many records name it.
    paths = list(dict.fromkeys(record.path for record in catalog.records))
    near = config.audit.near_duplicates
    inspected = inspect_images(paths, background=config.background, max_pixels=config.max_pixels, descriptors=near)
    bad = {one.statistics.path: one.statistics.error for one in inspected if one.statistics.error is not None}
    unknown = _find_unknown_classes(catalog.records, config, class_names)
    unusable = bad | {name: why for name, why in unknown.items() if name not in bad}
    if (bad and config.on_bad_image == "error") or len(unusable) == len(paths):
        reasons = format_list((f"{name} ({why})" for name, why in unusable.items()), most=3)
        what = f"{len(unusable)} of {format_count(len(paths), 'image')} can't be used: {reasons}"
        hint = "repair or remove them; `imagetune data check` lists them all, and --fix writes a table without them"
        raise DataError(what, where=str(path), hint=hint)
    lost = {place: why for code, why in _LOST.items() for place in _list_paths(catalog.findings, code)}
    records = [record for record in catalog.records if record.path not in unusable]
    return group_records(records, _find_alike(records, inspected), catalog.root), unusable | lost


def _find_alike(records: Sequence[Record], inspected: Sequence[Inspection]) -> list[int]:
    """Return the near-duplicate group of each record."""
    alike = dict(zip((one.statistics.path for one in inspected), find_duplicate_groups(inspected), strict=True))
    return [alike[record.path] for record in records]


def _list_paths(findings: Sequence[Finding], code: str) -> Iterator[str]:
    return (path for finding in findings if finding.code == code for path in finding.paths)


def _find_unknown_classes(records: Sequence[Record], config: DataConfig, class_names: Sequence[str]) -> dict[str, str]:
    """Return path and reason of the images of classes that the model doesn't know."""
    if config.task not in ("single_label", "ordinal"):
        return {}
    known = frozenset(class_names)
    return {r.path: f"the model doesn't know the class {r.label!r}" for r in records if r.label not in known}


def _cut_model(model: keras.Model, recipe: Recipe) -> SplitModel:
    halves = split_model_at(model, get_backbone(recipe.model.backbone), POOLING)
    if halves is None:  # impossible: build_model puts a pooling layer between every backbone and its head
        raise ValueError(f"the model can't be cut behind {POOLING}")
    return halves


def _examine(
    model: keras.Model,
    halves: SplitModel,
    records: Sequence[Record],
    recipe: Recipe,
    images: TrainingImages,
    *,
    thresholds: Sequence[float],
    known: Predictions | None,
) -> EvaluatedSplit:
    """Return a split's features and predictions; without test-time augmentation the head predicts from the features."""
    batches = _compute_features(halves, records, recipe, images)
    features = np.concatenate([batch.images for batch in batches]) if batches else None
    if known is None and batches and not recipe.evaluate.tta:
        known = build_predictions(
            [record.path for record in records],
            [record.label for record in records],
            # float64 as from predict_records, so that both ways give the same metrics to the last digit.
            predict_probabilities(halves.predictions, batches).astype(np.float64),
            images.class_names,
            rule=build_label_rule(recipe.data),
            thresholds=thresholds,
        )
    predictions = known or predict_labelled(
        model, records, images.class_names, recipe, thresholds=thresholds, images=images
    )
    return EvaluatedSplit(records, predictions, features)


def _compute_features(
    halves: SplitModel, records: Sequence[Record], recipe: Recipe, images: TrainingImages
) -> Sequence[FeatureBatch]:
    """Return batches of the backbone's features for images without augmentation; none where memory is short."""
    size = len(records) * int(np.prod(halves.feature_shape)) * np.dtype(np.float32).itemsize
    if size > _MEMORY_SHARE * psutil.virtual_memory().available:
        return ()
    # A fine-tuned backbone gives features that no other run can use: they are not worth the disk.
    hashes: Mapping[str, str] = images.hashes if caches_features(recipe.train) else {}
    seen = replace(images, hashes=hashes)
    return compute_plain_features(halves, records, seen, batch_size=recipe.evaluation_batch_size)
