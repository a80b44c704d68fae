"""What a search plans where its recipe doesn't say it, and what a sweep or a bake-off finds beside its winner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagetune.core.text import format_count
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.schema import Recipe
from imagetune.search.bakeoff import probes_of
from imagetune.search.finalists import direction_of
from imagetune.search.sweep import sweep_effects, sweep_settings
from imagetune.search.trial import TrialResult
from imagetune.search_runs.bakeoff import baked, bakeoff_lines, write_bakeoff
from imagetune.search_runs.sweep import sweep_lines, write_sweep


def plan_line(loaded: LoadedRecipe) -> str:
    """Return what to know of the trials before they start; empty where the recipe says it."""
    config = loaded.recipe.search
    if config.algorithm == "sweep":
        settings = len(sweep_settings(loaded.spaces))
        planned, what = settings * config.repeats, f"{settings} settings x {format_count(config.repeats, 'seed')}"
        told = f"{format_count(planned, 'training')}: {what}, one variable at a time"
    elif config.algorithm == "bakeoff":
        planned = len(probes_of(loaded.spaces))
        tuned = min(config.finalists, planned)
        after = (
            f", then {format_count(tuned * config.repeats, 'training')}: the best {tuned} fine-tuned" if tuned else ""
        )
        seeds = f" with {config.repeats} seeds" if tuned and config.repeats > 1 else ""
        told = f"{format_count(planned, 'probe')} of backbones{after}{seeds}"
    elif config.algorithm == "hyperband":
        return _hyperband_note(loaded.recipe)
    else:
        return ""
    most = config.budget.trials
    return f"trials      {told}" + (f"; search.budget.trials stops after {most}" if most and most < planned else "")


def write_findings(folder: Path, loaded: LoadedRecipe, results: Sequence[TrialResult]) -> tuple[str, ...]:
    """Write ``sweep.csv`` or ``bakeoff.csv`` and return the same for the screen; nothing for other algorithms.

    Args:
        folder: The search's run folder.
        loaded: Its recipe and spaces.
        results: How the trials ended.

    Raises:
        ResourceError: The disk is full.
    """
    config = loaded.recipe.search
    direction = direction_of(config.objective)
    if config.algorithm == "sweep":
        effects = sweep_effects(sweep_settings(loaded.spaces), results, direction=direction)
        write_sweep(folder, effects)
        return tuple(sweep_lines(effects, config.objective, direction, loaded.document.name))
    if config.algorithm == "bakeoff":
        rows = baked(folder, results, direction)
        write_bakeoff(folder, rows)
        return tuple(bakeoff_lines(rows, config.objective))
    return ()


def _hyperband_note(recipe: Recipe) -> str:
    """Return what is amiss where no trial can drop out, which is all that hyperband is about."""
    config = recipe.search
    most = config.max_epochs or sum(stage.epochs for stage in recipe.train.stages)
    if most >= config.factor:
        return ""
    least = f"with {format_count(most, 'epoch')} and search.factor {config.factor} hyperband has one rung"
    return f"note        {least}, from which no trial drops out; raise search.max_epochs or the epochs of the stages"
