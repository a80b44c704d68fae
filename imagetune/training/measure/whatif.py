"""What-if analysis: settings of a recipe that could be changed, and the estimated cost of training with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np

from imagetune.data.loading.timing import LoadingTimes, PipelineTimes
from imagetune.recipe.sections.train import StageConfig
from imagetune.training.feature_cache.plan import AUTO_COPIES, plan_features, read_feature_settings
from imagetune.training.measure.forecast import (
    AUGMENT,
    DECODE,
    PROCESS_SHARE,
    READ,
    Change,
    Costs,
    StageCosts,
    bottleneck,
    cache_features,
    change_stages,
    count_needed_processes,
    forecast,
    use_processes,
)
from imagetune.training.measure.timing import StageTimes, find_smaller_size, load_first_batch, time_forward, time_stage
from imagetune.training.measure.workers import MAX_WORKERS, START_SECONDS, measure_loading_speeds
from imagetune.training.setup.job import TrainingJob, build_objective, build_stage_model, build_targets

MIXED = "mixed_bfloat16"


@dataclass(frozen=True)
class Measured:
    """Measurements of a recipe's training.

    Attributes:
        costs: Costs of the training.
        stages: Times of each stage on the device.
        loading: Times of loading each stage's images on one core.
        cache: The recipe's ``data.cache``; the pipeline was measured without a cache.
    """

    costs: Costs
    stages: tuple[StageTimes, ...]
    loading: tuple[LoadingTimes, ...]
    cache: str


def find_changes(job: TrainingJob, measured: Measured) -> list[Change]:
    """Return the settings that could be changed with their costs; some are measured first.

    Args:
        job: The training job; its model's weights change.
        measured: Measurements of the training as it is.

    Raises:
        ImagetuneError: A measurement failed.
    """
    piece, _ = bottleneck(forecast(measured.costs))
    found = [
        *_find_loading_changes(job, measured),
        *_find_feature_changes(job, measured),
        *_find_compile_changes(job, measured),
    ]
    # Where loading is the bottleneck, a faster model would only wait longer.
    if piece in (READ, DECODE, AUGMENT):
        return found
    return [*found, *_find_device_changes(job, measured)]


def _find_loading_changes(job: TrainingJob, measured: Measured) -> Iterator[Change]:
    data, costs = job.images.config, measured.costs
    now = 1 / costs.stages[0].delivery
    if data.workers == 0 and costs.cores > 1:
        count = (
            costs.cores if costs.shared else max(count_needed_processes(stage, costs.cores) for stage in costs.stages)
        )
        count = min(count, MAX_WORKERS)
        speed = count * PROCESS_SHARE / costs.stages[0].loading
        reason = f"{count} processes would load about {speed:,.0f} images/s, threads load {now:,.0f}"
        yield Change("data.workers", count, use_processes(costs, count, START_SECONDS), True, reason)
    elif data.workers != 0:
        speeds = measure_loading_speeds(job.images.train, data, data.augmentation)
        slower = measured.costs.stages[0].loading * speeds.threads
        changed = change_stages(costs, lambda stage: replace(stage, delivery=stage.loading / slower, start_seconds=0.0))
        reason = f"threads load {speeds.threads:,.0f} images/s, the processes {now:,.0f}, after their start"
        yield Change("data.workers", 0, changed, True, reason)
    if measured.cache == "off":
        each = 1e3 * (costs.stages[0].read + costs.stages[0].decode)
        reason = f"reading and decoding take {each:.2g} ms an image, and would be done once"
        yield Change(
            "data.cache", "auto", change_stages(costs, lambda stage: replace(stage, decoded=True)), True, reason
        )
    yield from _drop_transform(measured)


def _drop_transform(measured: Measured) -> Iterator[Change]:
    """Yield the change that leaves out the slowest transform of the augmentation, if there is any."""
    stages, found = [], {}
    for stage, loading in zip(measured.costs.stages, measured.loading, strict=True):
        if not loading.transforms:
            stages.append(stage)
            continue
        name, timing = max(loading.transforms, key=lambda pair: pair[1].seconds)
        saved = min(timing.seconds, stage.augment)
        left = (stage.loading - saved) / stage.loading
        found[name] = f"{name} takes {1e3 * timing.seconds:.2g} of the {1e3 * stage.loading:.2g} ms of loading an image"
        # The pipeline is assumed to get faster by the same share as one core.
        stages.append(replace(stage, augment=stage.augment - saved, delivery=stage.delivery * left))
    if found:
        name, reason = next(iter(found.items()))
        changed = replace(measured.costs, stages=tuple(stages))
        yield Change("data.augmentation", f"without {name}", changed, False, reason)


def _find_feature_changes(job: TrainingJob, measured: Measured) -> Iterator[Change]:
    stages = job.config.stages
    off = [stage for stage in stages if read_feature_settings(job.config, stage).cut == "off"]
    if off:
        key = "train.cache" if job.config.cache == "off" else f"train.stages[{stages.index(off[0])}].cache"
        wanted = {stage.name: stage.model_copy(update={"cache": "auto"}) for stage in off}
        yield from _try_plans(job, measured, wanted, key, "auto", same_result=False)
        return
    fresh = {
        stage.name: stage.model_copy(update={"augmented_copies": AUTO_COPIES})
        for stage, times in zip(stages, measured.stages, strict=True)
        if times.plan.halves is None
        and times.frozen is not None
        and read_feature_settings(job.config, stage).copies == "auto"
    }
    if fresh:
        yield from _try_plans(job, measured, fresh, "train.augmented_copies", AUTO_COPIES, same_result=False)
    fewer = {stage.name: max(1, stage.copies // 2) for stage in measured.costs.stages if stage.copies > 1}
    if fewer:
        copies = min(fewer.values())
        changed = change_stages(
            measured.costs, lambda stage: replace(stage, copies=copies) if stage.name in fewer else stage
        )
        reason = "each version of the images goes through the frozen layers once"
        yield Change("train.augmented_copies", copies, changed, False, reason)


def _try_plans(
    job: TrainingJob,
    measured: Measured,
    wanted: Mapping[str, StageConfig],
    key: str,
    value: object,
    *,
    same_result: bool,
) -> Iterator[Change]:
    """Yield the change that lets stages cache features, where their plans then do so."""
    stages, reason, same = [], "", True
    for config, costs in zip(job.config.stages, measured.costs.stages, strict=True):
        stage = wanted.get(config.name)
        if stage is None:
            stages.append(costs)
            continue
        plan = plan_features(job, stage, build_stage_model(job, stage))
        if plan.halves is None:
            stages.append(costs)
            continue
        reason, same = plan.reason, same and not plan.augmented
        stages.append(cache_features(costs, plan.copies))
    if reason:
        yield Change(key, value, replace(measured.costs, stages=tuple(stages)), same_result or same, reason)


def _find_compile_changes(job: TrainingJob, measured: Measured) -> Iterator[Change]:
    """Yield the change that switches XLA off, measured.

    It is compared only on the CPU, and where the recipe has switched it on.
    """
    if job.config.jit_compile is not True or not measured.costs.shared or keras.backend.backend() != "tensorflow":
        return
    plain = replace(job, config=job.config.model_copy(update={"jit_compile": "auto"}))
    objective, targets = build_objective(job), build_targets(job)
    stages = []
    for config, costs in zip(job.config.stages, measured.costs.stages, strict=True):
        times = time_stage(plain, config, objective=objective, targets=targets)
        stages.append(add_device_times(costs, times))
    steps = [
        f"{1e3 * new.step:.3g} ms instead of {1e3 * old.step:.3g}"
        for new, old in zip(stages, measured.costs.stages, strict=True)
    ]
    reason = f"without XLA the step takes {', '.join(steps)} an image here"
    yield Change("train.jit_compile", "auto", replace(measured.costs, stages=tuple(stages)), True, reason)


def _find_device_changes(job: TrainingJob, measured: Measured) -> Iterator[Change]:
    """Yield changes that make the forward pass faster, measured; the whole step is assumed to change as much."""
    images = load_first_batch(job, job.config.stages[0]).images
    height, width = job.model.input_shape[1:3]
    pixels = np.zeros((len(images), height, width, 3), np.uint8)
    before = time_forward(job, job.model, pixels)[0].seconds
    size = find_smaller_size((height, width), job.backbone.min_size, job.backbone.size_step)
    if job.rebuild is not None and size is not None:
        small = np.zeros((len(pixels), *size, 3), np.uint8)
        share = time_forward(job, job.rebuild(size), small)[0].seconds / before
        area = size[0] * size[1] / (height * width)
        changed = change_stages(measured.costs, lambda stage: _shrink_images(stage, share, area))
        shown = size[0] if size[0] == size[1] else list(size)
        reason = f"the forward pass takes {share:.0%} of what it takes at {height} x {width}"
        changed = replace(changed, forward=changed.forward * share)
        yield Change("data.image_size", shown, changed, False, reason)
    if measured.costs.shared:
        return
    double = np.concatenate([pixels, pixels])
    share = time_forward(job, job.model, double)[0].seconds / before
    reason = f"the forward pass takes {share:.0%} an image in batches of {len(double)}"
    yield Change("train.batch_size", len(double), _speed_up(measured.costs, share), False, reason)
    if job.config.precision == "float32" and job.rebuild is not None:
        share = _time_mixed_forward(job, (height, width), pixels) / before
        reason = f"the forward pass takes {share:.0%} in {MIXED}"
        yield Change("train.precision", MIXED, _speed_up(measured.costs, share), False, reason)


def _time_mixed_forward(job: TrainingJob, size: tuple[int, int], pixels: np.ndarray) -> float:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(MIXED)
    try:
        model = job.rebuild(size) if job.rebuild is not None else job.model
        return time_forward(job, model, pixels)[0].seconds
    finally:
        keras.config.set_dtype_policy(policy)


def add_device_times(costs: StageCosts, times: StageTimes) -> StageCosts:
    """Return a stage's costs with the times measured on the device."""
    return replace(
        costs,
        step=times.step.seconds,
        compile_seconds=times.compile_seconds,
        frozen=times.frozen.seconds if times.frozen else 0.0,
        cached_step=times.cached_step.seconds if times.cached_step else None,
        copies=times.plan.copies,
        prepare=times.prepare.seconds if times.prepare else 0.0,
    )


def _shrink_images(stage: StageCosts, share: float, area: float) -> StageCosts:
    # Decoding depends little on the image size, so its time is left as it is.
    left = (stage.loading - (1 - area) * stage.augment) / stage.loading
    return replace(
        stage,
        step=stage.step * share,
        frozen=stage.frozen * share,
        augment=stage.augment * area,
        delivery=stage.delivery * left,
        transfer=stage.transfer * area,
    )


def _speed_up(costs: Costs, share: float) -> Costs:
    changed = change_stages(costs, lambda stage: replace(stage, step=stage.step * share, frozen=stage.frozen * share))
    return replace(changed, forward=costs.forward * share)


def combine_stage_costs(
    config: StageConfig,
    times: StageTimes,
    loading: LoadingTimes,
    *,
    pipeline: PipelineTimes,
    kept: PipelineTimes | None,
    transfer: float,
    decoded: bool,
    first_pass: bool,
) -> StageCosts:
    """Return the measured times of a stage as the costs that a forecast takes.

    Args:
        config: Values of the stage.
        times: Times of its work on the device.
        loading: Times of loading its images on one core.
        pipeline: Times of its pipeline where each image is decoded.
        kept: Times of its pipeline where images are kept decoded; None where that wasn't measured.
        transfer: Seconds per image into the batch and to the device.
        decoded: Whether images are kept decoded.
        first_pass: Whether this stage is the first to decode them at its size.
    """
    costs = StageCosts(
        name=config.name,
        epochs=config.epochs,
        read=loading.read.seconds,
        decode=loading.decode.seconds,
        augment=loading.augment_seconds,
        delivery=pipeline.each.seconds,
        kept_delivery=kept.each.seconds if kept else None,
        step=times.step.seconds,
        transfer=transfer,
        start_seconds=pipeline.start_seconds,
        decoded=decoded,
        first_pass=first_pass,
    )
    return add_device_times(costs, times)
