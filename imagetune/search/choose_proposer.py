"""Choice of the proposer: an oracle, a sweep or a bake-off, as ``search.algorithm`` says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from imagetune.recipe.loading import LoadedRecipe
from imagetune.search.proposers.bakeoff import ProbeProposer, count_kept
from imagetune.search.proposers.finalists import get_direction
from imagetune.search.proposers.oracle import OracleProposer
from imagetune.search.proposers.protocol import Proposer
from imagetune.search.proposers.sweep import SweepProposer, list_sweep_settings, list_sweep_trials
from imagetune.search.records.journal import Event, list_results
from imagetune.search.warm_start import read_warm_start


def build_proposer(loaded: LoadedRecipe, *, seed: int, folder: Path, past: Sequence[Event]) -> Proposer:
    """Return the proposer of a recipe's search algorithm.

    Args:
        loaded: The recipe and its spaces.
        seed: Seed of the proposals: the same seed proposes the same trials after the same results.
        folder: The search's run folder, which keeps the warm start that the search began with.
        past: Events of earlier sessions. Their trials all count, even where the recipe now asks for fewer.
    """
    config = loaded.recipe.search
    if config.algorithm == "sweep":
        settings = list_sweep_settings(loaded.spaces)
        # Fewer repeats than an earlier session had would make the journal's trials impossible to replay.
        repeats = max(config.repeats, -(-len(list_results(past)) // len(settings)))
        return SweepProposer(list_sweep_trials(settings, repeats=repeats, seed=loaded.recipe.seed))
    if config.algorithm == "bakeoff":
        direction = get_direction(config.objective)
        return ProbeProposer(loaded.spaces, keep=count_kept(config), direction=direction)
    # An oracle that may propose fewer trials than the journal has would end in the middle of its replay.
    config = config.model_copy(update={"trials": max(config.trials, len(list_results(past)))})
    epochs = sum(stage.epochs for stage in loaded.recipe.train.stages)
    known = read_warm_start(folder).known
    return OracleProposer(config, loaded.spaces, seed=seed, epochs=epochs, known=known)
