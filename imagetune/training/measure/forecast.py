"""From the measured costs of each piece to the time of a training, its bottleneck, and the setting that saves most.

Nothing here measures; every metric follows from those that are given. Loading and training overlap. On a device of
its own the slower of the two sets the pace. On the CPU both want the same cores, so their work adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

READ, DECODE, AUGMENT = "reading files", "decoding", "augmenting"
TRANSFER, PREPARE, STEP = "moving batches to the device", "blending and asking the teacher", "the training step"
FEATURES, VALIDATION, COMPILE = "the features of frozen layers", "validation", "compiling"
START = "the start of the pipeline"

# Share of a perfect pipeline that worker processes reach: the rest goes into sending batches (docs/performance.md).
PROCESS_SHARE = 0.85
# A cached image costs a copy; measured, that is less than this share of loading one.
CACHED_SHARE = 0.03
# A head alone is a small part of a step; what subtraction leaves of it is noise below this share.
MIN_STEP_SHARE = 0.03
# Savings below are not worth a change; a setting that changes nothing else goes first from here on.
WORTH_SAYING, WORTH_ALONE = 0.05, 0.1


@dataclass(frozen=True)
class StageCosts:
    """What a stage costs: seconds an image, unless said otherwise.

    Attributes:
        name: The stage's.
        epochs: Passes over the training images.
        read: Reading a file, on one core.
        decode: Decoding, on one core.
        augment: Augmenting, on one core.
        delivery: What the pipeline takes, undisturbed, where it decodes every image.
        step: The whole training step.
        transfer: Into the batch and to the device.
        prepare: Blending and teacher.
        compile_seconds: Once.
        start_seconds: Once, until the pipeline delivers.
        frozen: Forward pass of the frozen layers; 0 without any.
        cached_step: Training step from cached features on; None where none are cached.
        copies: Augmented copies of each image that a cached stage needs: as many passes over the images.
        decoded: Whether images are kept decoded.
        first_pass: Whether this stage is the first to decode them at its size.
        kept_delivery: What the pipeline takes for images that are kept decoded; None where that must be reckoned.
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
        """All of loading, on one core."""
        return self.read + self.decode + self.augment


@dataclass(frozen=True)
class Costs:
    """What a training costs.

    Attributes:
        stages: In their order.
        train_images: Training images.
        val_images: Validation images.
        forward: Seconds an image of a forward pass for validation.
        cores: That this process may use.
        shared: Whether the model runs on the cores that load, too.
    """

    stages: tuple[StageCosts, ...]
    train_images: int
    val_images: int
    forward: float
    cores: int
    shared: bool


@dataclass(frozen=True)
class StageForecast:
    """A stage as it would run.

    Attributes:
        name: The stage's.
        images_per_second: Training images, in an epoch like most of the stage's.
        epoch_seconds: Such an epoch, with validation.
        seconds: The whole stage.
        pieces: Where its seconds go; what is hidden behind something slower has none.
        waits_for: What sets the pace: loading or the step.
    """

    name: str
    images_per_second: float
    epoch_seconds: float
    seconds: float
    pieces: dict[str, float]
    waits_for: Literal["loading", "step"]


@dataclass(frozen=True)
class Advice:
    """A setting and what it would save.

    Attributes:
        setting: The key of the recipe, or what to leave out.
        value: What to set it to.
        saves_seconds: Of the whole training.
        share: Of the training's seconds.
        same_result: False where the model that comes out is another one.
        reason: A clause with the metrics behind it.
    """

    setting: str
    value: Any
    saves_seconds: float
    share: float
    same_result: bool
    reason: str


@dataclass(frozen=True)
class Change:
    """A setting that could be changed, and what every stage would cost then.

    Attributes:
        setting: The key of the recipe, or what to leave out.
        value: What to set it to.
        costs: With that setting.
        same_result: False where the model that comes out is another one.
        reason: A clause with the metrics behind it.
    """

    setting: str
    value: Any
    costs: Costs
    same_result: bool
    reason: str


def forecast(costs: Costs) -> list[StageForecast]:
    """Return each stage as it would run."""
    return [_forecast_stage(costs, stage) for stage in costs.stages]


def sum_seconds(costs: Costs) -> float:
    """Return the seconds of all stages."""
    return sum(stage.seconds for stage in forecast(costs))


def bottleneck(forecasts: Sequence[StageForecast]) -> tuple[str, float]:
    """Return the piece that takes the most of all stages' seconds, and its share."""
    pieces: dict[str, float] = {}
    for stage in forecasts:
        for name, seconds in stage.pieces.items():
            pieces[name] = pieces.get(name, 0.0) + seconds
    name = max(pieces, key=lambda piece: pieces[piece])
    return name, pieces[name] / max(sum(pieces.values()), 1e-9)


def rank_changes(costs: Costs, changes: Sequence[Change]) -> list[Advice]:
    """Return what each change would save, the largest saving first; those that save nothing are left out."""
    before = sum_seconds(costs)
    found = []
    for change in changes:
        saved = before - sum_seconds(change.costs)
        share = saved / max(before, 1e-9)
        if saved > 0:
            found.append(Advice(change.setting, change.value, saved, share, change.same_result, change.reason))
    return sorted(found, key=lambda advice: advice.share, reverse=True)


def best_advice(ranked: Sequence[Advice]) -> Advice | None:
    """Return the one setting to change, None where none is worth it.

    One that leaves the result as it is goes before larger savings that don't.
    """
    for advice in ranked:
        if advice.same_result and advice.share >= WORTH_ALONE:
            return advice
    return next((advice for advice in ranked if advice.share >= WORTH_SAYING), None)


def change_stages(costs: Costs, change: Callable[[StageCosts], StageCosts]) -> Costs:
    """Return the costs with every stage changed."""
    return replace(costs, stages=tuple(change(stage) for stage in costs.stages))


def use_processes(costs: Costs, count: int, start_seconds: float) -> Costs:
    """Return the costs with ``count`` worker processes instead of what there is."""
    rate = min(count, costs.cores) * PROCESS_SHARE
    return change_stages(
        costs,
        lambda stage: replace(stage, delivery=stage.loading / rate, kept_delivery=None, start_seconds=start_seconds),
    )


def cache_features(stage: StageCosts, copies: int) -> StageCosts:
    """Return a stage that caches the features of its frozen layers, the step from there on taken by difference."""
    if stage.cached_step is not None:
        return replace(stage, copies=min(copies, stage.epochs))
    # Backward and update of the rest are in the difference: frozen layers have a forward pass alone.
    step = max(stage.step - stage.frozen, MIN_STEP_SHARE * stage.step)
    return replace(stage, cached_step=step, copies=min(copies, stage.epochs))


def count_needed_processes(stage: StageCosts, cores: int) -> int:
    """Return how many processes feed the step of a stage, at most one a core."""
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
    """Seconds an image of one pass, and of each of its pieces."""

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
    # On shared cores loading takes its time from the step; on a device of its own it runs beside it.
    if costs.shared:
        together.update({name: seconds / costs.cores for name, seconds in parts.items()})
    seconds = sum(together.values())
    if delivery <= seconds:
        return _Pace(seconds, together, waits=False)
    return _Pace(delivery, {name: delivery * part / max(loading, 1e-9) for name, part in parts.items()}, waits=True)


def _is_decoded(stage: StageCosts, number: int) -> bool:
    return stage.decoded and not (stage.first_pass and number == 0)


def _validation_seconds(costs: Costs, stage: StageCosts) -> float:
    """Return an epoch's validation; where features are cached it is nearly nothing."""
    if stage.cached_step is not None:
        return stage.cached_step * costs.val_images
    loading = (stage.read + stage.decode) / costs.cores * (CACHED_SHARE if stage.decoded else 1.0)
    device = costs.forward + stage.transfer
    return costs.val_images * (device + loading if costs.shared else max(device, loading))
