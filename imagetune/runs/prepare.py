"""Preparation of a training: images read, audited and split, `auto` settings resolved, the model built and loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import keras
import numpy as np

from imagetune.core.messages import Say
from imagetune.core.text import format_count, format_list
from imagetune.data.audit.audit import Audit, audit_catalog, enforce_audit
from imagetune.data.audit.bit_depth import settle_bit_depth
from imagetune.data.findings import Finding
from imagetune.data.loading.image_cache import ImageCaches
from imagetune.data.loading.targets import ValueScale, compute_value_scale
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.read import read_catalog
from imagetune.data.splits.holdout import open_holdout
from imagetune.data.splits.splits import Splits, split_catalog
from imagetune.errors import DataError, ResourceError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.build import build_model, find_value_scale
from imagetune.model.devices import find_device
from imagetune.model.keras_settings import set_keras_settings
from imagetune.model.load_weights import WeightsReport, load_weights
from imagetune.model.manifest import load_model
from imagetune.recipe.schema import Recipe
from imagetune.recipe.solving import find_solver_obstacle
from imagetune.runs.checks.tasks import check_classes
from imagetune.runs.lineage import count_seen_images, list_ancestors, open_members
from imagetune.runs.open import find_run
from imagetune.tracking.resolve import is_mlflow_uri, resolve_run
from imagetune.training.feature_cache.features import caches_features
from imagetune.training.feature_cache.plan import find_size_obstacle
from imagetune.training.measure.batch_size import Load, find_batch_size
from imagetune.training.measure.timing import time_calls
from imagetune.training.measure.workers import choose_workers, count_reads, measure_loading_speeds
from imagetune.training.objectives.distillation import Teacher, make_teacher
from imagetune.training.setup.events import SilentListener
from imagetune.training.setup.faults import convert_memory_errors
from imagetune.training.setup.job import TrainingImages, TrainingJob
from imagetune.training.setup.stages import check_stages
from imagetune.training.setup.stopping import StopRequest

# More than these would push the training off the screen; the others are counted.
_MOST_WARNINGS = 3

Workers = Literal["measured", "unless_features_are_kept", "as_written"]
"""How a number for ``data.workers: auto`` is found; see `prepare_training`."""


@dataclass(frozen=True)
class Data:
    """The images of a run.

    Attributes:
        catalog: All images with their labels.
        audit: The findings on them.
        splits: The images of each split.
        caches: Decoded images, kept for later epochs and runs.
    """

    catalog: Catalog
    audit: Audit
    splits: Splits
    caches: ImageCaches

    def images(self, recipe: Recipe) -> TrainingImages:
        """Return the images of training and validation; the test split is not among them."""
        splits = self.splits
        return TrainingImages(
            splits.train,
            splits.val,
            splits.class_names,
            recipe.data,
            self.audit.hashes,
            self.caches,
            self._duplicate_groups,
        )

    @cached_property
    def _duplicate_groups(self) -> dict[str, int]:
        """Near-duplicate group of each image that has near-duplicates, by path."""
        groups = self.audit.duplicate_groups
        sizes = Counter(groups)
        return {
            record.path: group for record, group in zip(self.catalog.records, groups, strict=True) if sizes[group] > 1
        }


@dataclass(frozen=True)
class Training:
    """A prepared training: its resolved recipe, its model with weights, and its images.

    Attributes:
        recipe: The recipe, with a number for everything that was ``auto`` and is settled before training.
        job: The training itself: model, images and stages, still without a folder for checkpoints and a listener.
        weights: The source of the model's initial weights.
    """

    recipe: Recipe
    job: TrainingJob
    weights: WeightsReport


def read_data(recipe: Recipe, *, say: Say, known: bool = False) -> Data:
    """Read the labelled images of a recipe, audit them and split them.

    Args:
        recipe: A validated recipe.
        say: Receives the counts and the findings.
        known: Whether the findings have been said before, as to a run that is gone on with: then they are only counted.

    Raises:
        DataError: There are no images, or a finding of the audit is an error.
        RecipeError: Settings of the recipe don't fit the classes of the images.
    """
    catalog = read_catalog(recipe.data)
    audit = audit_catalog(catalog, recipe.data)
    # Before the split: errors in the images are the audit's to name, not the split's.
    enforce_audit(audit)
    splits = split_catalog(catalog, audit, recipe.data, seed=recipe.split_seed)
    check_classes(recipe, splits.class_names)
    test = splits.test_count
    counts = f"{len(splits.train)} train, {len(splits.val)} val, {test} test"
    say("data", f"{counts} in {splits.describe_targets()}")
    if not known:
        for note in splits.notes:
            say("note", note)
    _say_findings(audit.findings, say, known=known)
    return Data(catalog, audit, splits, ImageCaches(audit.hashes))


def _say_findings(findings: Sequence[Finding], say: Say, *, known: bool) -> None:
    """Say what the check of the images has found: the first warnings each, and how many findings there are besides."""
    shown = [] if known else [finding for finding in findings if finding.severity != "note"][:_MOST_WARNINGS]
    rest = [finding for finding in findings if finding not in shown]
    if len(rest) == 1 and not known:
        # The line that counts it would be as long.
        shown, rest = [*shown, *rest], []
    for finding in shown:
        hint = f"; {finding.hint}" if finding.hint else ""
        named = finding.name_images() if finding.severity != "note" else ""
        say(finding.severity, f"{finding.title}{named}{hint} [{finding.code}]")
    if rest:
        codes = format_list(dict.fromkeys(finding.code for finding in rest), most=8)
        what = format_count(len(rest), "more finding" if shown else "finding")
        say("note", f"{what} on the images, shown by `imagetune data check` and in the report: {codes}")


def prepare_training(
    recipe: Recipe, data: Data, *, say: Say, stop: StopRequest, workers: Workers = "measured"
) -> Training:
    """Resolve ``auto`` settings, build the model, load its weights, and return the training that is ready to run.

    Args:
        recipe: A validated recipe.
        data: Its images.
        say: Receives the settings that were resolved, and the source of the weights.
        stop: Checked after every step of the training.
        workers: How ``data.workers: auto`` becomes a number: ``measured`` by loading a few images;
            ``unless_features_are_kept`` also, but 0 where other trainings of the same images keep their features: then
            only the first training of a head loads images at all, and measuring would take longer than most of the
            others. ``as_written`` leaves ``auto`` as it is.

    Raises:
        ResourceError: Not even one image at a time fits in memory.
        RecipeError: A stage or the teacher doesn't fit the model.
        WeightsError: The weights are not to be had.
        BadImageError: An image can no longer be read.
    """
    # First: every model of these images is built, measured and saved with the depth of all of them.
    recipe = recipe.model_copy(update={"data": settle_bit_depth(recipe.data, data.audit.statistics)})
    # The trials of a batch size need the GPU's memory, which this process holds once it has a model.
    recipe = resolve_batch_size(recipe, data.images(recipe), say=say)
    with convert_memory_errors(recipe.train.pass_size):
        model, weights = build_pretrained(recipe, data.images(recipe), say=say)
        recipe = settle_solved_stages(recipe, data.images(recipe), model, say=say)
        if workers == "unless_features_are_kept" and caches_features(recipe.train):
            recipe = _with_workers(recipe, 0)
        elif workers != "as_written":
            recipe = resolve_workers(recipe, data.images(recipe), model, say=say)
    return Training(recipe, build_training_job(recipe, data.images(recipe), model, stop=stop), weights)


def build_pretrained(recipe: Recipe, images: TrainingImages, *, say: Say) -> tuple[keras.Model, WeightsReport]:
    """Return the recipe's model with the weights of its backbone loaded, everything seeded, and their source."""
    # A process may build many models, as trials do: names and memory of earlier ones must not reach this one.
    keras.backend.clear_session()
    keras.utils.set_random_seed(recipe.seed)
    # They are global: without this, the precision of the model that was built before would stay.
    set_keras_settings(recipe.train.precision)
    image, config = recipe.data.image, recipe.model
    # From the training labels alone, as the scale becomes part of the model.
    scale = compute_value_scale(images.train_labels) if recipe.data.task == "regression" else None
    model = _build(recipe, images.class_names, (image.height, image.width), scale)
    # Before the weights, which may have to be fetched: a stage that can't be trained is cheaper to find first.
    check_stages(model, get_backbone(config.backbone), recipe.train.stages)
    if is_mlflow_uri(config.weights):
        local = resolve_run(config.weights, uri=recipe.tracking.uri)
        config = config.model_copy(update={"weights": str(local)})
    report = load_weights(model, config)
    say("model", report.note)
    return model, report


def settle_solved_stages(recipe: Recipe, images: TrainingImages, model: keras.Model, *, say: Say) -> Recipe:
    """Return the recipe with true or false for ``solve: auto`` of each stage.

    Args:
        recipe: A validated recipe.
        images: The images of training and validation.
        model: The recipe's model, whose features say how large the problem is.
        say: Receives why a head is trained that is solved elsewhere.

    Raises:
        ResourceError: A head that must be solved has more features than fit in memory.
    """
    stages = []
    for stage in recipe.train.stages:
        if stage.solve is False:
            stages.append(stage)
            continue
        obstacle = find_solver_obstacle(recipe.train, stage, recipe.model.head, recipe.data.task)
        obstacle = obstacle or find_size_obstacle(stage, recipe.train, images, model)
        if obstacle and stage.solve is True:
            raise ResourceError(f"the head can't be solved: {obstacle}", hint="set solve: false for this stage")
        if obstacle:
            say("note", f"the head of stage {stage.name!r} is trained, not solved: {obstacle}")
        settled = {"solve": False} if obstacle else {"solve": True, "epochs": 1}
        stages.append(stage.model_copy(update=settled))
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"stages": tuple(stages)})})


def resolve_batch_size(recipe: Recipe, images: TrainingImages, *, say: Say) -> Recipe:
    """Return the recipe with a number for ``train.batch_size: auto``: the largest batch that fits in memory.

    Call it before this process uses a GPU: the trials need its memory.

    Raises:
        ResourceError: Not even one image at a time fits.
    """
    if recipe.train.batch_size != "auto":
        return recipe
    load = Load(model=recipe.model, train=recipe.train, data=recipe.data, outputs=len(images.class_names))
    return recipe.model_copy(update={"train": find_batch_size(load, say=say)})


def resolve_workers(recipe: Recipe, images: TrainingImages, model: keras.Model, *, say: Say) -> Recipe:
    """Return the recipe with a number for ``data.workers: auto``, chosen by loading a few images.

    The number changes the speed of loading only, not the pixels that the model is trained on.

    Args:
        recipe: A recipe whose batch size is a number.
        images: The images of training and validation.
        model: The recipe's model, whose speed may decide; its weights stay as they are.
        say: Receives the choice and its reason.

    Raises:
        BadImageError: An image can no longer be read.
    """
    data = recipe.data
    if data.workers != "auto":
        return recipe

    def step() -> float:
        # Black images: the time of a forward pass doesn't depend on the pixels.
        images = np.zeros((recipe.train.pass_size, data.image.height, data.image.width, 3), np.uint8)
        return time_calls(lambda: model.predict_on_batch(images), len(images))[0].min_seconds

    choice = choose_workers(
        measure_loading_speeds(images.train, data, data.augmentation),
        count_reads(recipe.train, data, len(images.train)),
        # Without a GPU loading and training compete for the same cores.
        shared=find_device().is_cpu,
        step=step,
    )
    say("workers", f"{choice.workers}: {choice.reason}")
    return _with_workers(recipe, choice.workers)


def _with_workers(recipe: Recipe, workers: int) -> Recipe:
    if recipe.data.workers != "auto":
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"workers": workers})})


def refuse_inherited_leaks(recipe: Recipe, splits: Splits, hashes: Mapping[str, str], *, say: Say) -> None:
    """Make sure that no run which this one builds on was trained on this one's test images.

    Such a run is the teacher of a distillation, or the source of the initial weights.

    Args:
        recipe: The recipe; ``data.audit.on_leak`` says whether a leak is an error, a warning or ignored.
        splits: The images; the test split is opened only to compare it.
        hashes: The SHA-256 of the images by path, as far as known.
        say: Receives warnings.

    Raises:
        DataError: The teacher or the source of the weights has seen test images.
    """
    if recipe.data.audit.on_leak == "ignore":
        return
    for where, run in list_ancestors(recipe).items():
        tested = open_holdout(splits)
        (ancestor,) = open_members([str(find_run(run, uri=recipe.tracking.uri).path)])
        # A model from a registry may have lost its run; that is a warning, as nothing shows a leak.
        if not ancestor.folder.splits.is_file():
            say("warning", f"{where}: {run} has no splits.csv, so nobody knows whether it was trained on test images")
        elif seen := count_seen_images(ancestor, tested, hashes):
            what = f"{run} was trained on {seen} of this run's {len(tested)} test images"
            if recipe.data.audit.on_leak == "error":
                hint = (
                    "use the same split as that run (the same data.split.seed, or data.split: {method: hash} for both)"
                )
                raise DataError(what, where=where, hint=f"{hint}, or set data.audit.on_leak: warn")
            say("warning", f"{where}: {what}: the test metrics are too good")


def build_training_job(recipe: Recipe, images: TrainingImages, model: keras.Model, *, stop: StopRequest) -> TrainingJob:
    """Return the training that a recipe describes, still without a folder for checkpoints and a listener.

    Args:
        recipe: The resolved recipe.
        images: The images of training and validation.
        model: The model of `build_pretrained`.
        stop: Checked after every step.

    Raises:
        RecipeError: The teacher has other classes.
        ModelFileError: The teacher can't be loaded.
    """
    return TrainingJob(
        model=model,
        backbone=get_backbone(recipe.model.backbone),
        config=recipe.train,
        images=images,
        folder=Path(),
        seed=recipe.seed,
        listener=SilentListener(),
        stop=stop,
        # The scale of the model as it is, which its weights were trained with.
        rebuild=lambda size: _build(recipe, images.class_names, size, find_value_scale(model)),
        teacher=_load_teacher(recipe, images.class_names),
    )


def _build(
    recipe: Recipe, class_names: tuple[str, ...], size: tuple[int, int], scale: ValueScale | None
) -> keras.Model:
    return build_model(recipe.model, num_classes=len(class_names), image_size=size, task=recipe.data.task, scale=scale)


def _load_teacher(recipe: Recipe, class_names: tuple[str, ...]) -> Teacher | None:
    config = recipe.train.teacher
    if config is None:
        return None
    folder = find_run(config.run, uri=recipe.tracking.uri)
    return make_teacher(load_model(folder.model), class_names, config.temperature)
