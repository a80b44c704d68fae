"""The profile of a training as lines of at most 100 columns: a table of times, the bottleneck and advice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from imagetune.cli.render.lines import format_line, wrap_line
from imagetune.cli.render.tables import format_table
from imagetune.core.text import format_duration

if TYPE_CHECKING:
    from imagetune.commands.profile import Loading, Profile
    from imagetune.data.loading.timing import Timing
    from imagetune.recipe.sections.train import StageConfig
    from imagetune.training.measure.forecast import Advice, StageForecast
    from imagetune.training.measure.timing import StageTimes

# Wide enough for the table of times; the lines below it are wrapped to the same width, in files, too.
WIDTH = 100
_MAX_NAME = 44


def format_profile(profile: Profile) -> Iterator[str]:
    """Yield a table of times, the forecast of each stage, the bottleneck and the setting to change."""
    for line in (*_head_lines(profile), "", *_table(profile), "", *_result_lines(profile)):
        yield from wrap_line(line, WIDTH).split("\n")


def _head_lines(profile: Profile) -> Iterator[str]:
    recipe, image = profile.recipe, profile.recipe.data.image
    size = f"{image.height} x {image.width}"
    what = f"{recipe.model.backbone}, {profile.backend} on {profile.device}, {profile.costs.cores} cores"
    yield format_line("profile", f"{what}, batches of {recipe.train.batch_size} at {size}")
    if profile.costs.shared and profile.backend == "tensorflow" and recipe.train.jit_compile == "auto":
        yield format_line("xla", "off: on the CPU it measured slower, so `train.jit_compile: auto` leaves it off")


def _result_lines(profile: Profile) -> Iterator[str]:
    for config, times, found in zip(profile.recipe.train.stages, profile.stages, profile.forecasts, strict=True):
        yield _stage_line(config, times, found)
    yield format_line(
        "in all", f"about {format_duration(profile.seconds)}, without reading the data and the final test"
    )
    yield format_line("bottleneck", _bottleneck(profile))
    yield _advice_line(profile.best)


def _table(profile: Profile) -> list[str]:
    cores = f"{profile.costs.cores} cores" if profile.costs.cores > 1 else "in all"
    heads = [["", "ms an image", "min to max", "images/s", "images/s"], ["", "", "", "one core", cores]]
    return format_table([*heads, *_rows(profile)], indent=0)


def _rows(profile: Profile) -> Iterator[list[str]]:
    for loading in profile.loading:
        yield from _loading_rows(profile, loading)
    yield _row("into the batch and to the device", profile.transfer, of_all=profile.transfer.images_per_second)
    for config, times in zip(profile.recipe.train.stages, profile.stages, strict=True):
        name = f"stage {config.name}: "
        if times.prepare is not None:
            yield _row(f"{name}blending, teacher", times.prepare, of_all=times.prepare.images_per_second)
        if times.frozen is not None:
            part = "frozen layers" if times.boundary == "pooling" else f"frozen layers up to {times.boundary}"
            yield _row(f"{name}{part}, forward", times.frozen, of_all=times.frozen.images_per_second)
        yield _row(f"{name}training step", times.step, of_all=times.step.images_per_second)
        if times.cached_step is not None:
            yield _row(f"{name}step on kept features", times.cached_step, of_all=times.cached_step.images_per_second)
    yield _row("validation, forward", profile.forward, of_all=profile.forward.images_per_second)


def _loading_rows(profile: Profile, loading: Loading) -> Iterator[list[str]]:
    cores, times = profile.costs.cores, loading.times
    of = f" for {', '.join(loading.stages)}" if len(profile.loading) > 1 else ""

    def piece(name: str, timing: Timing) -> list[str]:
        return _row(
            name,
            timing,
            of_core=timing.images_per_second,
            of_all=timing.images_per_second * cores if cores > 1 else None,
        )

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
    yield _row(f"loading as configured, {with_what}", each, of_all=each.images_per_second)
    if loading.kept is not None:
        yield _row("  once images are kept decoded", loading.kept.each, of_all=loading.kept.each.images_per_second)


def _row(name: str, timing: Timing, *, of_core: float | None = None, of_all: float | None = None) -> list[str]:
    shown = name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 3]}..."
    return [
        shown,
        _ms(timing.seconds),
        f"{_ms(timing.min_seconds)} to {_ms(timing.max_seconds)}",
        _rate(of_core),
        _rate(of_all),
    ]


def _stage_line(config: StageConfig, times: StageTimes, found: StageForecast) -> str:
    compiling = f", {format_duration(times.compile_seconds)} of it compiling" if times.compile_seconds >= 1 else ""
    paces = f"{_rate(found.images_per_second)} images/s, {_seconds(found.epoch_seconds)} an epoch"
    if times.plan.halves is not None:
        paces = f"{paces} once the features are there"
    reason = f"; {times.plan.reason}" if times.frozen is not None else ""
    text = f"about {format_duration(found.seconds)} for {config.epochs} epochs: {paces}{compiling}{reason}"
    return format_line(f"stage {config.name}", text)


def _bottleneck(profile: Profile) -> str:
    piece, share = profile.bottleneck
    text = f"{piece}, {share:.0%} of the training's time"
    longest = max(range(len(profile.forecasts)), key=lambda index: profile.forecasts[index].seconds)
    stage, times = profile.forecasts[longest], profile.stages[longest]
    loading = next(found for found in profile.loading if stage.name in found.stages)
    load = (loading.kept or loading.pipeline).each.images_per_second
    step = (times.frozen if times.plan.halves is not None and times.frozen else times.step).images_per_second
    pace = f"loading alone does {_rate(load)} images/s, the model alone {_rate(step)}"
    return f"{text}; in stage {stage.name} {pace}"


def _advice_line(best: Advice | None) -> str:
    if best is None:
        return format_line("setting", "none that was tried would save 5% of the time")
    saving = f"would save about {format_duration(best.saves_seconds)} ({best.share:.0%})"
    what = f"{best.setting} {best.value}" if best.setting == "data.augmentation" else f"{best.setting}: {best.value}"
    other = "" if best.same_result else "; it changes the training: compare the validation metrics"
    return format_line("setting", f"{what} {saving}: {best.reason}{other}")


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
