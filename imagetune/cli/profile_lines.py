"""A profile as lines of at most 100 columns: a table of the pieces, then what follows from it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING

from imagetune.core.text import format_duration

if TYPE_CHECKING:
    from imagetune.data.timing import Timing
    from imagetune.profiling import Loading, Profile
    from imagetune.recipe.train import StageConfig
    from imagetune.training.forecast import Advice, StageForecast
    from imagetune.training.timing import StageTimes

WIDTH = 100
LABEL = 12
NAME = 46


def profile_lines(profile: Profile) -> Iterator[str]:
    """Yield the table, the time of each stage, the bottleneck and the setting to change."""
    yield from _head(profile)
    yield ""
    yield from _table(profile)
    yield ""
    for config, times, found in zip(profile.recipe.train.stages, profile.stages, profile.forecasts, strict=True):
        yield from _stage_lines(config, times, found)
    yield from _told("in all", f"about {format_duration(profile.seconds)}, without reading the data and the final test")
    yield from _told("bottleneck", _bottleneck(profile))
    yield from _advice_lines(profile.best)


def _head(profile: Profile) -> Iterator[str]:
    recipe, image = profile.recipe, profile.recipe.data.image
    size = f"{image.height} x {image.width}"
    what = f"{recipe.model.backbone}, {profile.backend} on {profile.device}, {profile.costs.cores} cores"
    yield from _told("profile", f"{what}, batches of {recipe.train.batch_size} at {size}")
    if profile.costs.shared and profile.backend == "tensorflow" and recipe.train.jit_compile == "auto":
        yield from _told("xla", "off: on the CPU it measured slower, so `train.jit_compile: auto` leaves it off")


def _table(profile: Profile) -> Iterator[str]:
    cores = profile.costs.cores
    yield f"{'':<{NAME}}  ms a picture   least to most   pictures/s of"
    yield f"{'':<{NAME}}{'':31}one core{f'{cores} cores' if cores > 1 else '':>11}"
    for loading in profile.loading:
        yield from _loading_rows(profile, loading)
    yield _row("into the batch and to the device", profile.transfer, of_all=profile.transfer.rate)
    for config, times in zip(profile.recipe.train.stages, profile.stages, strict=True):
        name = f"stage {config.name}: "
        if times.prepare is not None:
            yield _row(f"{name}blending, teacher", times.prepare, of_all=times.prepare.rate)
        if times.frozen is not None:
            part = "frozen layers" if times.boundary == "pooling" else f"frozen layers up to {times.boundary}"
            yield _row(f"{name}{part}, forward", times.frozen, of_all=times.frozen.rate)
        yield _row(f"{name}training step", times.step, of_all=times.step.rate)
        if times.cached_step is not None:
            yield _row(f"{name}step on kept features", times.cached_step, of_all=times.cached_step.rate)
    yield _row("validation, forward", profile.forward, of_all=profile.forward.rate)


def _loading_rows(profile: Profile, loading: Loading) -> Iterator[str]:
    cores, times = profile.costs.cores, loading.times
    of = f" for {', '.join(loading.stages)}" if len(profile.loading) > 1 else ""

    def piece(name: str, timing: Timing) -> str:
        return _row(name, timing, of_core=timing.rate, of_all=timing.rate * cores if cores > 1 else None)

    yield piece(f"reading the file{of}", times.read)
    yield piece(f"decoding to {loading.image.height} x {loading.image.width}", times.decode)
    if times.augment is not None:
        kind = loading.augmentation if isinstance(loading.augmentation, str) else "as listed"
        yield piece(f"augmenting, {kind}", times.augment)
        for name, timing in times.transforms:
            yield piece(f"  {name}", timing)
    workers = profile.recipe.data.workers
    with_what = f"{workers} processes" if workers else "threads"
    each = loading.pipeline.each
    yield _row(f"loading as configured, {with_what}", each, of_all=each.rate)
    if loading.kept is not None:
        yield _row("  once pictures are kept decoded", loading.kept.each, of_all=loading.kept.each.rate)


def _row(name: str, timing: Timing, *, of_core: float | None = None, of_all: float | None = None) -> str:
    shown = name if len(name) <= NAME else f"{name[: NAME - 3]}..."
    span = f"{_ms(timing.least)} to {_ms(timing.most)}"
    rates = "".join(f"{_rate(rate):>{width}}" for rate, width in ((of_core, 11), (of_all, 11)))
    return f"{shown:<{NAME}}  {_ms(timing.seconds):>10}  {span:>16}{rates}".rstrip()


def _stage_lines(config: StageConfig, times: StageTimes, found: StageForecast) -> Iterator[str]:
    compiling = f", {format_duration(times.compile_seconds)} of it compiling" if times.compile_seconds >= 1 else ""
    paces = f"{_rate(found.pictures_per_second)} pictures/s, {_seconds(found.epoch_seconds)} an epoch"
    if times.plan.halves is not None:
        paces = f"{paces} once the features are there"
    text = f"about {format_duration(found.seconds)} for {config.epochs} epochs: {paces}{compiling}"
    yield from _told(f"stage {config.name}", text)
    if times.frozen is not None:
        yield from _told("", times.plan.reason)


def _bottleneck(profile: Profile) -> str:
    piece, share = profile.bottleneck
    text = f"{piece}, {share:.0%} of the training's time"
    longest = max(range(len(profile.forecasts)), key=lambda index: profile.forecasts[index].seconds)
    stage, times = profile.forecasts[longest], profile.stages[longest]
    loading = next(found for found in profile.loading if stage.name in found.stages)
    load = (loading.kept or loading.pipeline).each.rate
    step = (times.frozen if times.plan.halves is not None and times.frozen else times.step).rate
    pace = f"loading alone does {_rate(load)} pictures/s, the model alone {_rate(step)}"
    return f"{text}; in stage {stage.name} {pace}"


def _advice_lines(best: Advice | None) -> Iterator[str]:
    if best is None:
        yield from _told("setting", "none that was tried would save 5% of the time")
        return
    saving = f"would save about {format_duration(best.saves_seconds)} ({best.share:.0%})"
    what = f"{best.setting} {best.value}" if best.setting == "data.augmentation" else f"{best.setting}: {best.value}"
    yield from _told("setting", f"{what} {saving}: {best.reason}")
    if not best.same_result:
        yield from _told("", "it changes what is learned: compare the validation figures")


def _told(label: str, text: str) -> Iterator[str]:
    """Yield a label and its text, wrapped."""
    first = label if len(label) < LABEL else f"{label} "
    lines = textwrap.wrap(text, WIDTH - LABEL, initial_indent=" " * max(len(first) - LABEL, 0))
    for number, line in enumerate(lines):
        yield f"{first:<{LABEL}}{line.lstrip()}" if number == 0 else f"{'':<{LABEL}}{line}"


def _ms(seconds: float) -> str:
    milliseconds = 1e3 * seconds
    return (
        f"{milliseconds:.3f}"
        if milliseconds < 1
        else f"{milliseconds:.2f}"
        if milliseconds < 100
        else f"{milliseconds:.0f}"
    )


def _rate(rate: float | None) -> str:
    if rate is None:
        return ""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else format_duration(seconds)
