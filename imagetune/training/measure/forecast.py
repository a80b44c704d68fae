"""Forecast of a training's time, its bottleneck and the change that saves most, from measured costs.

Nothing here measures: all numbers follow from the arguments. Loading and training overlap. With a device of its own the
slower of the two sets the pace; on the CPU both need the same cores, so that their times add up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

READ, DECODE, AUGMENT = "reading files", "decoding", "augmenting"
TRANSFER, PREPARE, STEP = "moving batches to the device", "blending and asking the teacher", "the training step"
FEATURES, VALIDATION, COMPILE = "the features of frozen layers", "validation", "compiling"
START = "the start of the pipeline"

# Share of a perfect speed-up that worker processes reach; the rest is spent on sending batches (docs/performance.md).
PROCESS_SHARE = 0.85
# A cached image is copied; measured, that takes less than this share of loading one.
CACHED_SHARE = 0.03
# A head alone takes a small share of a step; below this share the difference of two measurements is noise.
MIN_STEP_SHARE = 0.03
# Smallest share saved that is worth a change, and from which a change with the same result comes first.
WORTH_SAYING, WORTH_ALONE = 0.05, 0.1


@dataclass(frozen=True)
class StageCosts:
    """Costs of a stage, in seconds per image unless said otherwise.

    Attributes:
        name: Name of the stage.
        epochs: Number of passes over the training images.
        read: Time of reading a file, on one core.
        decode: Time of decoding, on one core.
        augment: Time of augmenting, on one core.
        delivery: Time of the pipeline, undisturbed, where it decodes every image.
        step: Time of the whole training step.
        transfer: Time of copying into the batch and to the device.
        prepare: Time of mixing and of the teacher's predictions.
        compile_seconds: Time of compiling, once.
        start_seconds: Time until the pipeline delivers its first batch, once.
        frozen: Time of the forward pass of frozen layers; 0 without any.
        cached_step: Time of a training step from cached features; None where none are cached.
        copies: Number of augmented copies of each image in a cached stage: as many passes over the images.
        decoded: Whether images are kept decoded.
        first_pass: Whether this stage is the first to decode them at its size.
        kept_delivery: Time of the pipeline for images that are kept decoded; None where it must be estimated.
    """

    name: str
    epochs: int
    read: float
    decode: float
    augment: float
    delivery: float
    step: float
    transfer: float = 0.0
    prepare: float = 0.0
    compile_seconds: float = 0.0
    start_seconds: float = 0.0
    frozen: float = 0.0
    cached_step: float | None = None
    copies: int = 1
    decoded: bool = False
    first_pass: bool = True
    kept_delivery: float | None = None

    @property
    def loading(self) -> float:
        """Time of loading an image on one core: reading, decoding and augmenting."""
        return self.read + self.decode + self.augment


@dataclass(frozen=True)
class Costs:
    """Costs of a training.

    Attributes:
        stages: Costs of the stages, in their order.
        train_images: Number of training images.
        val_images: Number of validation images.
        forward: Seconds per image of a forward pass for validation.
        cores: Number of cores that this process may use.
        shared: Whether the model runs on the same cores as the loading.
    """

    stages: tuple[StageCosts, ...]
    train_images: int
    val_images: int
    forward: float
    cores: int
    shared: bool


@dataclass(frozen=True)
class StageForecast:
    """Forecast of a stage.

    Attributes:
        name: Name of the stage.
        images_per_second: Training images per second in a typical epoch of the stage.
        epoch_seconds: Time of such an epoch, with validation.
        seconds: Time of the whole stage.
        pieces: Seconds by piece of work; what overlaps with slower work has none.
        waits_for: What limits the speed: loading or the training step.
    """

    name: str
    images_per_second: float
    epoch_seconds: float
    seconds: float
    pieces: dict[str, float]
    waits_for: Literal["loading", "step"]


@dataclass(frozen=True)
class Advice:
    """Advice to change a setting, with what that would save.

    Attributes:
        setting: The key of the recipe, or what to leave out.
        value: What to set it to.
        saves_seconds: Seconds that it saves of the whole training.
        share: Share that it saves of the training's time.
        same_result: Whether the trained model stays the same.
        reason: Clause with the measured numbers behind it.
    """

    setting: str
    value: Any
    saves_seconds: float
    share: float
    same_result: bool
    reason: str


@dataclass(frozen=True)
class Change:
    """A change of a setting, with the costs of training that it would lead to.

    Attributes:
        setting: The key of the recipe, or what to leave out.
        value: What to set it to.
        costs: Costs of the training with that setting.
        same_result: Whether the trained model stays the same.
        reason: Clause with the measured numbers behind it.
    """

    setting: str
    value: Any
    costs: Costs
    same_result: bool
    reason: str


def forecast(costs: Costs) -> list[StageForecast]:
    """Return the forecast of each stage."""
    return [_forecast_stage(costs, stage) for stage in costs.stages]


def sum_seconds(costs: Costs) -> float:
    """Return the forecast seconds of all stages together."""
    return sum(stage.seconds for stage in forecast(costs))


def bottleneck(forecasts: Sequence[StageForecast]) -> tuple[str, float]:
    """Return the piece of work that takes most of the training's time, and its share."""
    pieces: dict[str, float] = {}
    for stage in forecasts:
        for name, seconds in stage.pieces.items():
            pieces[name] = pieces.get(name, 0.0) + seconds
    name = max(pieces, key=lambda piece: pieces[piece])
    return name, pieces[name] / max(sum(pieces.values()), 1e-9)


def rank_changes(costs: Costs, changes: Sequence[Change]) -> list[Advice]:
    """Return the advice from changes that save time, the largest saving first."""
    before = sum_seconds(costs)
    found = []
    for change in changes:
        saved = before - sum_seconds(change.costs)
        share = saved / max(before, 1e-9)
        if saved > 0:
            found.append(Advice(change.setting, change.value, saved, share, change.same_result, change.reason))
    return sorted(found, key=lambda advice: advice.share, reverse=True)


def choose_advice(ranked: Sequence[Advice]) -> Advice | None:
    """Return the one setting to change; None where none is worth it.

    A change that leaves the trained model as it is comes before larger savings that don't.
    """
    for advice in ranked:
        if advice.same_result and advice.share >= WORTH_ALONE:
            return advice
    return next((advice for advice in ranked if advice.share >= WORTH_SAYING), None)


def change_stages(costs: Costs, change: Callable[[StageCosts], StageCosts]) -> Costs:
    """Return the costs with a change applied to every stage."""
    return replace(costs, stages=tuple(change(stage) for stage in costs.stages))


def use_processes(costs: Costs, count: int, start_seconds: float) -> Costs:
    """Return the costs with images loaded by ``count`` worker processes."""
    speedup = min(count, costs.cores) * PROCESS_SHARE
    return change_stages(
        costs,
        lambda stage: replace(stage, delivery=stage.loading / speedup, kept_delivery=None, start_seconds=start_seconds),
    )


def cache_features(stage: StageCosts, copies: int) -> StageCosts:
    """Return the costs of a stage that caches features, the step from there on estimated by subtraction."""
    if stage.cached_step is not None:
        return replace(stage, copies=min(copies, stage.epochs))
    # Frozen layers have only a forward pass, so the difference holds backward pass and update of the others.
    step = max(stage.step - stage.frozen, MIN_STEP_SHARE * stage.step)
    return replace(stage, cached_step=step, copies=min(copies, stage.epochs))


def count_needed_processes(stage: StageCosts, cores: int) -> int:
    """Return the number of processes that keep up with the step of a stage, at most one for each core."""
    return max(1, min(cores, -int(-stage.loading / (PROCESS_SHARE * max(stage.step, 1e-9)) // 1)))


def _forecast_stage(costs: Costs, stage: StageCosts) -> StageForecast:
    cached = stage.cached_step is not None
    passes = stage.copies if cached else stage.epochs
    device = stage.frozen if cached else stage.step
    loads = [_pace(costs, stage, device, decoded=_is_decoded(stage, number)) for number in range(passes)]
    pieces: dict[str, float] = {FEATURES: 0.0}
    for pace in loads:
        for name, seconds in pace.pieces.items():
            shown = FEATURES if cached and name == STEP else name
            pieces[shown] = pieces.get(shown, 0.0) + seconds * costs.train_images
    validation = _validation_seconds(costs, stage)
    if stage.cached_step is not None:
        pieces[STEP] = stage.cached_step * costs.train_images * stage.epochs
        # Features of validation images are computed once as well, undisturbed by augmentation.
        pieces[FEATURES] += costs.val_images * (stage.frozen + (stage.read + stage.decode) / costs.cores)
        typical = stage.cached_step
    else:
        typical = loads[-1].seconds
    pieces[VALIDATION] = validation * stage.epochs
    pieces[COMPILE], pieces[START] = stage.compile_seconds, stage.start_seconds
    epoch = typical * costs.train_images + validation
    # Cached epochs load nothing; the last pass stands for the others, as the first may still decode.
    slow = loads[-1].waits and not cached
    return StageForecast(
        stage.name,
        1.0 / max(typical, 1e-9),
        epoch,
        sum(pieces.values()),
        {name: seconds for name, seconds in pieces.items() if seconds},
        "loading" if slow else "step",
    )


@dataclass(frozen=True)
class _Pace:
    """Seconds per image of one pass over the images, and of each of its pieces of work."""

    seconds: float
    pieces: dict[str, float]
    waits: bool


def _pace(costs: Costs, stage: StageCosts, device: float, *, decoded: bool) -> _Pace:
    loading, delivery = stage.loading, stage.delivery
    parts = {READ: stage.read, DECODE: stage.decode, AUGMENT: stage.augment}
    if decoded:
        parts = {READ: 0.0, DECODE: CACHED_SHARE * (stage.read + stage.decode), AUGMENT: stage.augment}
        left = sum(parts.values())
        delivery = delivery * left / max(loading, 1e-9) if stage.kept_delivery is None else stage.kept_delivery
        loading = left
    work = {STEP: device, TRANSFER: stage.transfer, PREPARE: stage.prepare}
    together = dict(work)
    # On shared cores the time of loading adds to the step; beside a device it overlaps with it.
    if costs.shared:
        together.update({name: seconds / costs.cores for name, seconds in parts.items()})
    seconds = sum(together.values())
    if delivery <= seconds:
        return _Pace(seconds, together, waits=False)
    return _Pace(delivery, {name: delivery * part / max(loading, 1e-9) for name, part in parts.items()}, waits=True)


def _is_decoded(stage: StageCosts, number: int) -> bool:
    return stage.decoded and not (stage.first_pass and number == 0)


def _validation_seconds(costs: Costs, stage: StageCosts) -> float:
    """Return the seconds of an epoch's validation, which are few where features are cached."""
    if stage.cached_step is not None:
        return stage.cached_step * costs.val_images
    loading = (stage.read + stage.decode) / costs.cores * (CACHED_SHARE if stage.decoded else 1.0)
    device = costs.forward + stage.transfer
    return costs.val_images * (device + loading if costs.shared else max(device, loading))
