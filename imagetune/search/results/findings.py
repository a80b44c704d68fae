"""Plan and findings of a search: how many trainings it will run; effects of a sweep, backbones of a bake-off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imagetune.core.text import format_count
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.schema import Recipe
from imagetune.search.proposers.bakeoff import count_kept, count_probes
from imagetune.search.proposers.finalists import get_direction
from imagetune.search.proposers.sweep import Effect, compute_sweep_effects, list_sweep_settings
from imagetune.search.records.trial import TrialResult
from imagetune.search.results.bakeoff import BackboneResult, rank_backbones, write_bakeoff
from imagetune.search.results.sweep import write_sweep


@dataclass(frozen=True)
class Findings:
    """Findings of a search beside its winner; empty for most algorithms.

    Attributes:
        effects: Effect of each setting of a sweep, the defaults first.
        backbones: Results of a bake-off's backbones, the best probe first.
    """

    effects: tuple[Effect, ...] = ()
    backbones: tuple[BackboneResult, ...] = ()


NO_FINDINGS = Findings()


def describe_plan(loaded: LoadedRecipe) -> tuple[str, str] | None:
    """Return the number of planned trainings as topic and text for the screen; None where the recipe says it."""
    config = loaded.recipe.search
    if config.algorithm == "sweep":
        settings = len(list_sweep_settings(loaded.spaces))
        planned, what = settings * config.repeats, f"{settings} settings x {format_count(config.repeats, 'seed')}"
        text = f"{format_count(planned, 'training')}: {what}, one variable at a time"
    elif config.algorithm == "bakeoff":
        planned = count_probes(loaded.spaces, keep=count_kept(config))
        tuned = min(config.finalists, planned)
        after = (
            f", then {format_count(tuned * config.repeats, 'training')}: the best {tuned} fine-tuned" if tuned else ""
        )
        seeds = f" with {config.repeats} seeds" if tuned and config.repeats > 1 else ""
        text = f"{format_count(planned, 'probe')} of backbones{after}{seeds}"
    elif config.algorithm == "hyperband":
        return _hyperband_note(loaded.recipe)
    else:
        return None
    most = config.budget.trials
    return "trials", text + (f"; search.budget.trials stops after {most}" if most and most < planned else "")


def write_findings(folder: Path, loaded: LoadedRecipe, results: Sequence[TrialResult]) -> Findings:
    """Write the findings to ``sweep.csv`` or ``bakeoff.csv`` and return them; other algorithms have none.

    Args:
        folder: Run folder of the search.
        loaded: Recipe and spaces of the search.
        results: Results of all trials.

    Raises:
        ResourceError: The disk is full.
    """
    config = loaded.recipe.search
    direction = get_direction(config.objective)
    if config.algorithm == "sweep":
        effects = compute_sweep_effects(list_sweep_settings(loaded.spaces), results, direction=direction)
        write_sweep(folder, effects)
        return Findings(effects=tuple(effects))
    if config.algorithm == "bakeoff":
        rows = rank_backbones(folder, results, direction)
        write_bakeoff(folder, rows)
        return Findings(backbones=tuple(rows))
    return NO_FINDINGS


def _hyperband_note(recipe: Recipe) -> tuple[str, str] | None:
    """Return a warning where hyperband has one rung and so stops no trial early; else None."""
    config = recipe.search
    most = config.max_epochs or sum(stage.epochs for stage in recipe.train.stages)
    if most >= config.factor:
        return None
    rung = f"with {format_count(most, 'epoch')} and search.factor {config.factor} hyperband has one rung"
    return "note", f"{rung}, from which no trial drops out; raise search.max_epochs or the epochs of the stages"
