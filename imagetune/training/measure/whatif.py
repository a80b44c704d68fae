"""Settings of a recipe that could be changed, and what the training would cost then, as far as measuring can tell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import keras
import numpy as np

from imagetune.data.loading.timing import LoadingTimes, PipelineTimes
from imagetune.recipe.train import StageConfig
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
from imagetune.training.measure.timing import StageTimes, find_smaller_size, first_batch, time_forward, time_stage
from imagetune.training.measure.workers import MAX_WORKERS, START_SECONDS, measure_loading_speeds
from imagetune.training.setup.job import TrainingJob, build_objective, build_targets, stage_model

MIXED = "mixed_bfloat16"


@dataclass(frozen=True)
class Measured:
    """What was measured of a recipe.

    Attributes:
        costs: Of its training.
        stages: Of each stage on the device.
        loading: Of each stage's images on one core.
        cache: The recipe's ``data.cache``; the measured pipeline has none.
    """

    costs: Costs
    stages: tuple[StageTimes, ...]
    loading: tuple[LoadingTimes, ...]
    cache: str


def possible_changes(job: TrainingJob, measured: Measured) -> list[Change]:
    """Return what could be changed, measuring a little more where that is needed.

    Args:
        job: The training; its model's weights change.
        measured: What it costs as it is.

    Raises:
        ImagetuneError: As from measuring.
    """
    piece, _ = bottleneck(forecast(measured.costs))
    found = [*_loading_changes(job, measured), *_feature_changes(job, measured), *_compile_changes(job, measured)]
    # Where loading sets the pace, a quicker model would only wait longer.
    if piece in (READ, DECODE, AUGMENT):
        return found
    return [*found, *_device_changes(job, measured)]


def _loading_changes(job: TrainingJob, measured: Measured) -> Iterator[Change]:
    data, costs = job.images.config, measured.costs
    now = 1 / costs.stages[0].delivery
    if data.workers == 0 and costs.cores > 1:
        count = (
            costs.cores if costs.shared else max(count_needed_processes(stage, costs.cores) for stage in costs.stages)
        )
        count = min(count, MAX_WORKERS)
        rate = count * PROCESS_SHARE / costs.stages[0].loading
        reason = f"{count} processes would load about {rate:,.0f} images/s, threads load {now:,.0f}"
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
    yield from _without_transform(measured)


def _without_transform(measured: Measured) -> Iterator[Change]:
    """Yield the change that leaves out the transform that takes longest, if there is any."""
    stages, found = [], {}
    for stage, loading in zip(measured.costs.stages, measured.loading, strict=True):
        if not loading.transforms:
            stages.append(stage)
            continue
        name, timing = max(loading.transforms, key=lambda pair: pair[1].seconds)
        saved = min(timing.seconds, stage.augment)
        left = (stage.loading - saved) / stage.loading
        found[name] = f"{name} takes {1e3 * timing.seconds:.2g} of the {1e3 * stage.loading:.2g} ms of loading an image"
        # The pipeline is taken to get faster by the same share as one core.
        stages.append(replace(stage, augment=stage.augment - saved, delivery=stage.delivery * left))
    if found:
        name, reason = next(iter(found.items()))
        changed = replace(measured.costs, stages=tuple(stages))
        yield Change("data.augmentation", f"without {name}", changed, False, reason)


def _feature_changes(job: TrainingJob, measured: Measured) -> Iterator[Change]:
    stages = job.config.stages
    off = [stage for stage in stages if read_feature_settings(job.config, stage).cut == "off"]
    if off:
        key = "train.cache" if job.config.cache == "off" else f"train.stages[{stages.index(off[0])}].cache"
        wanted = {stage.name: stage.model_copy(update={"cache": "auto"}) for stage in off}
        yield from _with_plans(job, measured, wanted, key, "auto", same_result=False)
        return
    fresh = {
        stage.name: stage.model_copy(update={"augmented_copies": AUTO_COPIES})
        for stage, times in zip(stages, measured.stages, strict=True)
        if times.plan.halves is None
        and times.frozen is not None
        and read_feature_settings(job.config, stage).copies == "auto"
    }
    if fresh:
        yield from _with_plans(job, measured, fresh, "train.augmented_copies", AUTO_COPIES, same_result=False)
    fewer = {stage.name: max(1, stage.copies // 2) for stage in measured.costs.stages if stage.copies > 1}
    if fewer:
        copies = min(fewer.values())
        changed = change_stages(
            measured.costs, lambda stage: replace(stage, copies=copies) if stage.name in fewer else stage
        )
        reason = "each version of the images goes through the frozen layers once"
        yield Change("train.augmented_copies", copies, changed, False, reason)


def _with_plans(
    job: TrainingJob,
    measured: Measured,
    wanted: Mapping[str, StageConfig],
    key: str,
    value: object,
    *,
    same_result: bool,
) -> Iterator[Change]:
    """Yield the change that lets stages keep features, where their plans then say that it pays."""
    stages, reason, same = [], "", True
    for config, costs in zip(job.config.stages, measured.costs.stages, strict=True):
        stage = wanted.get(config.name)
        if stage is None:
            stages.append(costs)
            continue
        plan = plan_features(job, stage, stage_model(job, stage))
        if plan.halves is None:
            stages.append(costs)
            continue
        reason, same = plan.reason, same and not plan.augmented
        stages.append(cache_features(costs, plan.copies))
    if reason:
        yield Change(key, value, replace(measured.costs, stages=tuple(stages)), same_result or same, reason)


def _compile_changes(job: TrainingJob, measured: Measured) -> Iterator[Change]:
    """Yield the change that switches XLA off, measured.

    It is worth a comparison only on the CPU, and where somebody has switched it on.
    """
    if job.config.jit_compile is not True or not measured.costs.shared or keras.backend.backend() != "tensorflow":
        return
    plain = replace(job, config=job.config.model_copy(update={"jit_compile": "auto"}))
    objective, targets = build_objective(job), build_targets(job)
    stages = []
    for config, costs in zip(job.config.stages, measured.costs.stages, strict=True):
        times = time_stage(plain, config, objective=objective, targets=targets)
        stages.append(device_costs(costs, times))
    steps = [
        f"{1e3 * new.step:.3g} ms instead of {1e3 * old.step:.3g}"
        for new, old in zip(stages, measured.costs.stages, strict=True)
    ]
    reason = f"without XLA the step takes {', '.join(steps)} an image here"
    yield Change("train.jit_compile", "auto", replace(measured.costs, stages=tuple(stages)), True, reason)


def _device_changes(job: TrainingJob, measured: Measured) -> Iterator[Change]:
    """Yield changes that make the forward pass quicker, measured; the whole step is taken to change as much."""
    images = first_batch(job, job.config.stages[0]).images
    height, width = job.model.input_shape[1:3]
    pixels = np.zeros((len(images), height, width, 3), np.uint8)
    before = time_forward(job, job.model, pixels)[0].seconds
    if job.rebuild is not None and (size := find_smaller_size((height, width), job.backbone.min_size)) is not None:
        small = np.zeros((len(pixels), *size, 3), np.uint8)
        share = time_forward(job, job.rebuild(size), small)[0].seconds / before
        area = size[0] * size[1] / (height * width)
        changed = change_stages(measured.costs, lambda stage: _smaller(stage, share, area))
        shown = size[0] if size[0] == size[1] else list(size)
        reason = f"the forward pass takes {share:.0%} of what it takes at {height} x {width}"
        changed = replace(changed, forward=changed.forward * share)
        yield Change("data.image_size", shown, changed, False, reason)
    if measured.costs.shared:
        return
    double = np.concatenate([pixels, pixels])
    share = time_forward(job, job.model, double)[0].seconds / before
    reason = f"the forward pass takes {share:.0%} an image in batches of {len(double)}"
    yield Change("train.batch_size", len(double), _faster(measured.costs, share), False, reason)
    if job.config.precision == "float32" and job.rebuild is not None:
        share = _mixed_forward(job, (height, width), pixels) / before
        reason = f"the forward pass takes {share:.0%} in {MIXED}"
        yield Change("train.precision", MIXED, _faster(measured.costs, share), False, reason)


def _mixed_forward(job: TrainingJob, size: tuple[int, int], pixels: np.ndarray) -> float:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(MIXED)
    try:
        model = job.rebuild(size) if job.rebuild is not None else job.model
        return time_forward(job, model, pixels)[0].seconds
    finally:
        keras.config.set_dtype_policy(policy)


def device_costs(costs: StageCosts, times: StageTimes) -> StageCosts:
    """Return a stage's costs with what was measured on the device."""
    return replace(
        costs,
        step=times.step.seconds,
        compile_seconds=times.compile_seconds,
        frozen=times.frozen.seconds if times.frozen else 0.0,
        cached_step=times.cached_step.seconds if times.cached_step else None,
        copies=times.plan.copies,
        prepare=times.prepare.seconds if times.prepare else 0.0,
    )


def _smaller(stage: StageCosts, share: float, area: float) -> StageCosts:
    # Of decoding only a part falls with the size that is asked for, so it is left as it is.
    left = (stage.loading - (1 - area) * stage.augment) / stage.loading
    return replace(
        stage,
        step=stage.step * share,
        frozen=stage.frozen * share,
        augment=stage.augment * area,
        delivery=stage.delivery * left,
        transfer=stage.transfer * area,
    )


def _faster(costs: Costs, share: float) -> Costs:
    changed = change_stages(costs, lambda stage: replace(stage, step=stage.step * share, frozen=stage.frozen * share))
    return replace(changed, forward=costs.forward * share)


def stage_costs(
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
    """Return what was measured of a stage as the metrics that a forecast takes.

    Args:
        config: The stage's values.
        times: Of its work on the device.
        loading: Of its images on one core.
        pipeline: Of its pipeline where each image is decoded.
        kept: Of its pipeline where they are kept decoded, if that is known.
        transfer: Seconds an image into the batch and to the device.
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
    return device_costs(costs, times)
