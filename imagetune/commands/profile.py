"""Profile of a recipe's training: time of each piece, bottleneck, and the setting that would save most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION
from imagetune.core.messages import Say, say_nothing
from imagetune.core.processes import count_usable_cores
from imagetune.core.row_store import compute_row_bytes
from imagetune.data.loading.image_cache import ImageCaches
from imagetune.data.loading.pipeline import compute_steps_per_epoch
from imagetune.data.loading.timing import (
    SAMPLE,
    Augmentation,
    LoadingTimes,
    PipelineTimes,
    Timing,
    sample_evenly,
    time_loading,
    time_pipeline,
)
from imagetune.model.devices import find_device
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.data import DataConfig, ImageSettings
from imagetune.recipe.sections.train import StageConfig
from imagetune.runs.checks.recipe import load_checked_recipe
from imagetune.runs.prepare import prepare_training, read_data
from imagetune.training.measure.forecast import (
    Advice,
    Costs,
    StageForecast,
    bottleneck,
    choose_advice,
    forecast,
    rank_changes,
)
from imagetune.training.measure.timing import StageTimes, load_first_batch, time_forward, time_stage, time_transfer
from imagetune.training.measure.whatif import Measured, combine_stage_costs, find_changes
from imagetune.training.setup.job import (
    TrainingImages,
    TrainingJob,
    build_objective,
    build_targets,
    open_stage_batches,
    resolve_stage_data,
)
from imagetune.training.setup.stopping import StopRequest

PIPELINE_SECONDS = 1.5
# More epochs than a measurement of seconds can reach, so that batches never run out.
ENDLESS = 1000


@dataclass(frozen=True)
class Loading:
    """Loading times of the images of one or several stages.

    Attributes:
        stages: Names of the stages that load images in this way.
        image: The image settings, with the size in pixels.
        augmentation: The preset or the list of transforms, as in the recipe.
        times: Seconds of reading, decoding and augmenting an image on one core.
        pipeline: Seconds of an image through the pipeline as configured, every image decoded.
        kept: The same from decoded images in the cache; None where none are kept, or where other processes keep them.
    """

    stages: tuple[str, ...]
    image: ImageSettings
    augmentation: Augmentation
    times: LoadingTimes
    pipeline: PipelineTimes
    kept: PipelineTimes | None


@dataclass(frozen=True)
class Profile:
    """The measured times of a recipe's training, with forecast and advice.

    Attributes:
        recipe: The resolved recipe, with numbers for what was ``auto``.
        backend: Name of the Keras backend.
        device: Name of the device that the model runs on.
        costs: Seconds an image of every piece of the training.
        loading: Loading times, one entry for each way in which stages load images.
        stages: Times of each stage's model on the device.
        transfer: Time of putting an image into its batch and onto the device.
        forward: Time of the forward pass for a validation image.
        forecasts: Forecast of each stage's time.
        bottleneck: The piece that takes the most time, and its share of the training.
        advice: The saving of each possible change of a setting, the largest first.
        best: The one setting to change; None where none is worth it.
    """

    recipe: Recipe
    backend: str
    device: str
    costs: Costs
    loading: tuple[Loading, ...]
    stages: tuple[StageTimes, ...]
    transfer: Timing
    forward: Timing
    forecasts: tuple[StageForecast, ...]
    bottleneck: tuple[str, float]
    advice: tuple[Advice, ...]
    best: Advice | None

    @property
    def seconds(self) -> float:
        """The forecast seconds of the whole training."""
        return sum(stage.seconds for stage in self.forecasts)

    def document(self) -> dict[str, Any]:
        """Return all times as JSON values: seconds an image, and images a second on one core and on all cores."""
        train, cores = self.recipe.train, self.costs.cores
        return {
            FORMAT_VERSION: CURRENT_FORMAT,
            "recipe": self.recipe.name,
            "backbone": self.recipe.model.backbone,
            "backend": self.backend,
            "device": self.device,
            "cores": cores,
            "batch_size": train.batch_size,
            "workers": self.recipe.data.workers,
            "images": {"train": self.costs.train_images, "val": self.costs.val_images},
            "loading": [_build_loading_document(loading, cores) for loading in self.loading],
            "transfer": _build_timing_document(self.transfer),
            "validation_forward": _build_timing_document(self.forward),
            "stages": [
                _build_stage_document(config, times, found)
                for config, times, found in zip(train.stages, self.stages, self.forecasts, strict=True)
            ],
            "seconds": self.seconds,
            "bottleneck": {"piece": self.bottleneck[0], "share": self.bottleneck[1]},
            "advice": [asdict(advice) for advice in self.advice],
            "best": asdict(self.best) if self.best else None,
        }


def profile(
    recipe_path: Path,
    overrides: Sequence[str] = (),
    *,
    say: Say = say_nothing,
    stop: StopRequest | None = None,
) -> Profile:
    """Return the time of each piece of a recipe's training, measured on its own images; nothing is written.

    Args:
        recipe_path: The recipe.
        overrides: ``KEY=VALUE`` texts.
        say: Receives what is being measured.
        stop: Checked between measurements; by default nothing stops it.

    Raises:
        ImagetuneError: As from ``fit``.
    """
    recipe = load_checked_recipe(recipe_path, overrides).recipe
    data = read_data(recipe, say=say)
    training = prepare_training(recipe, data, say=say, stop=stop or StopRequest())
    # A cache of decoded images would be left behind, and would hide the time of decoding.
    plain = training.recipe.data.model_copy(update={"cache": "off"})
    job = replace(training.job, images=replace(training.job.images, config=plain))
    return _measure_training(training.recipe, job, say)


def _measure_training(recipe: Recipe, job: TrainingJob, say: Say) -> Profile:
    say("measuring", f"loading {min(SAMPLE, len(job.images.train))} of {len(job.images.train)} training images")
    # Other processes keep their own images, which can't be measured from here.
    loading = _measure_loading(job, kept=recipe.data.cache != "off" and recipe.data.workers == 0)
    objective, targets = build_objective(job), build_targets(job)
    times = []
    for stage in job.config.stages:
        say("measuring", f"stage {stage.name}")
        times.append(time_stage(job, stage, objective=objective, targets=targets))
    say("measuring", "validation")
    # Validation has the recipe's image size, whatever the sizes of stages are.
    images = load_first_batch(job, job.config.stages[0].model_copy(update={"image_size": None})).images
    transfer, (forward, _) = time_transfer(images), time_forward(job, job.model, images)
    costs = _build_costs(recipe, job, loading, times, transfer, forward)
    say("measuring", "what could be changed")
    by_stage = [_find_loading(loading, stage) for stage in job.config.stages]
    measured = Measured(costs, tuple(times), tuple(found.times for found in by_stage), recipe.data.cache)
    advice = rank_changes(costs, find_changes(job, measured))
    forecasts = forecast(costs)
    return Profile(
        recipe,
        keras.backend.backend(),
        find_device().name,
        costs,
        loading,
        tuple(times),
        transfer,
        forward,
        tuple(forecasts),
        bottleneck(forecasts),
        tuple(advice),
        choose_advice(advice),
    )


def _measure_loading(job: TrainingJob, *, kept: bool) -> tuple[Loading, ...]:
    """Measure each way in which stages load images, once."""
    ways: dict[str, list[StageConfig]] = {}
    for stage in job.config.stages:
        data = resolve_stage_data(job.images.config, stage)
        # Stages that read images alike are measured once: each measurement takes seconds.
        way = f"{data.image} {data.augmentation}"
        ways.setdefault(way, []).append(stage)
    return tuple(_measure_way(job, stages, kept=kept) for stages in ways.values())


def _measure_way(job: TrainingJob, stages: Sequence[StageConfig], *, kept: bool) -> Loading:
    data = resolve_stage_data(job.images.config, stages[0])
    times = time_loading(job.images.train, data.image, data.augmentation, max_pixels=data.max_pixels)
    job.stop.check()
    workers = data.workers if isinstance(data.workers, int) else 0
    # Batches that lie finished in the buffers when the clock starts would flatter the rate: they are taken first.
    buffered = 4 * workers if workers else min(count_usable_cores(), 8) + 2
    batches = open_stage_batches(job, stages[0], epochs=ENDLESS)
    pipeline = time_pipeline(batches, buffered=buffered, seconds=PIPELINE_SECONDS)
    job.stop.check()
    names = tuple(stage.name for stage in stages)
    return Loading(
        names, data.image, data.augmentation, times, pipeline, _measure_kept(job, stages[0], buffered) if kept else None
    )


def _measure_kept(job: TrainingJob, stage: StageConfig, buffered: int) -> PipelineTimes | None:
    """Return the time of loading images that a cache keeps decoded; None where an image's hash is unknown.

    The cache is in memory also where the recipe keeps it on disk, whose pages are in memory after the first epoch.
    """
    images, size = job.images, job.config.pass_size
    sample = sample_evenly(images.train, max(SAMPLE, 2 * size))
    hashes = {record.path: images.hashes[record.path] for record in sample if record.path in images.hashes}
    # The cache knows images by their content alone.
    if len(hashes) < len(sample):
        return None
    config = images.config.model_copy(update={"cache": "ram"})
    some = TrainingImages(sample, (), images.class_names, config, hashes, ImageCaches(hashes))
    batches = open_stage_batches(replace(job, images=some), stage, epochs=ENDLESS, natural=True)
    times = time_pipeline(
        batches, buffered=compute_steps_per_epoch(len(sample), size) + buffered, seconds=PIPELINE_SECONDS
    )
    job.stop.check()
    return times


def _find_loading(loading: Sequence[Loading], stage: StageConfig) -> Loading:
    return next(found for found in loading if stage.name in found.stages)


def _build_costs(
    recipe: Recipe,
    job: TrainingJob,
    loading: Sequence[Loading],
    times: Sequence[StageTimes],
    transfer: Timing,
    forward: Timing,
) -> Costs:
    stages, seen = [], set()
    for config, measured in zip(job.config.stages, times, strict=True):
        found = _find_loading(loading, config)
        stages.append(
            combine_stage_costs(
                config,
                measured,
                found.times,
                pipeline=found.pipeline,
                kept=found.kept,
                transfer=transfer.seconds,
                decoded=_fits_in_cache(
                    resolve_stage_data(recipe.data, config), len(job.images.train) + len(job.images.val)
                ),
                # Decoded images are kept by their size: only the first stage of a size decodes them.
                first_pass=found.image not in seen,
            )
        )
        seen.add(found.image)
    return Costs(
        tuple(stages),
        len(job.images.train),
        len(job.images.val),
        forward.seconds,
        count_usable_cores(),
        find_device().is_cpu,
    )


def _fits_in_cache(data: DataConfig, count: int) -> bool:
    """Return whether so many images would fit decoded into the cache, by the limit in the recipe."""
    image = data.image
    return (
        data.cache != "off" and count * compute_row_bytes((image.height, image.width, 3), np.uint8) <= data.cache_bytes
    )


def _build_timing_document(timing: Timing) -> dict[str, float | int]:
    return {
        "seconds": timing.seconds,
        "min": timing.min_seconds,
        "max": timing.max_seconds,
        "rounds": len(timing.rounds),
        "images_per_second": timing.images_per_second,
    }


def _build_loading_document(loading: Loading, cores: int) -> dict[str, Any]:
    times = loading.times
    pieces = {"read": times.read, "decode": times.decode, "augment": times.augment}
    augmentation = loading.augmentation
    return {
        "stages": list(loading.stages),
        "image": loading.image.model_dump(mode="json"),
        "augmentation": augmentation if isinstance(augmentation, str) else list(augmentation),
        "one_core": {name: _build_timing_document(timing) for name, timing in pieces.items() if timing is not None},
        "transforms": {name: _build_timing_document(timing) for name, timing in times.transforms},
        "one_core_images_per_second": 1 / times.seconds,
        "all_cores_images_per_second": cores / times.seconds,
        "pipeline": {**_build_timing_document(loading.pipeline.each), "start_seconds": loading.pipeline.start_seconds},
        "pipeline_of_kept_images": _build_timing_document(loading.kept.each) if loading.kept else None,
    }


def _build_stage_document(config: StageConfig, times: StageTimes, found: StageForecast) -> dict[str, Any]:
    return {
        "name": config.name,
        "epochs": config.epochs,
        "step": _build_timing_document(times.step),
        "frozen_forward": _build_timing_document(times.frozen) if times.frozen else None,
        "frozen_boundary": times.boundary,
        "cached_step": _build_timing_document(times.cached_step) if times.cached_step else None,
        "prepare": _build_timing_document(times.prepare) if times.prepare else None,
        "features": times.plan.reason,
        "augmented_copies": times.plan.copies if times.plan.halves is not None else None,
        "compile_seconds": times.compile_seconds,
        "images_per_second": found.images_per_second,
        "epoch_seconds": found.epoch_seconds,
        "seconds": found.seconds,
        "seconds_by_piece": found.pieces,
        "waits_for": found.waits_for,
    }
