"""Which executor a recipe asks for."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imagetune.core.messages import Say
from imagetune.core.processes import usable_cores
from imagetune.core.text import format_count
from imagetune.recipe.schema import Recipe
from imagetune.recipe.search import SearchConfig
from imagetune.runs.prepare import Data
from imagetune.search.executors.forkserver import PRELOADED, warm_up_trials
from imagetune.search.executors.processes import Processes
from imagetune.search.executors.protocol import Executor, Work
from imagetune.search.executors.ray_cluster import RayTasks, check_cluster
from imagetune.search.executors.slots import Needs, Slot, slots_of, this_machine
from imagetune.search.trial_process.run import run_trial
from imagetune.search.trial_process.shared import Shared
from imagetune.training.feature_cache.features import keeps_features
from imagetune.training.measure.batch_size import available_memory

_GIB = 2**30
_HEAD_CORES, _HEAD_MEMORY = 1, _GIB
_BACKBONE_CORES, _BACKBONE_MEMORY = 4, 4 * _GIB
# A trial that begins before others have ended learns less from them: what bayesian search proposes, and what median
# stopping compares with.
_MAX, _MAX_LEARNING = 16, 4


def prepare_executor(recipe: Recipe) -> None:
    """Begin what an executor needs some seconds for, while this process does other things.

    Raises:
        ResourceError: Ray isn't installed, or its cluster can't be reached.
    """
    if recipe.search.executor == "ray":
        check_cluster(recipe.search.ray)
    else:
        warm_up_trials()


@contextmanager
def executor_of(recipe: Recipe, data: Data, *, say: Say) -> Iterator[Executor]:
    """Give what runs the trials of a search, and close it in the end.

    Args:
        recipe: The one whose spaces are searched.
        data: Its images.
        say: Prints a line for the user.

    Raises:
        ResourceError: The Ray cluster that the recipe names can't be reached, or is too small.
    """
    work = functools.partial(run_trial, Shared(data, recipe.search))
    executor = _on_ray(recipe.search, work, say) if recipe.search.executor == "ray" else _here(recipe, work, say)
    try:
        yield executor
    finally:
        executor.close()


def _here(recipe: Recipe, work: Work, say: Say) -> Executor:
    slots = local_slots(recipe)
    if len(slots) > 1:
        say("trials", told_slots(slots, usable_cores()))
    return Processes(work, slots, preload=PRELOADED)


def _on_ray(search: SearchConfig, work: Work, say: Say) -> Executor:
    executor = RayTasks(work, search.ray, parallel=search.parallel)
    say("trials", f"{executor.slots} at a time on the Ray cluster")
    return executor


def told_slots(slots: Sequence[Slot], cores: int) -> str:
    """Return how many trials run at a time and on what, for people."""
    if any(slot.environment for slot in slots):
        return f"{len(slots)} at a time: {', '.join(slot.place for slot in slots)}"
    crowded = "; more trials than cores, so that each takes longer" if len(slots) > cores else ""
    return f"{len(slots)} at a time on {format_count(cores, 'core')}{crowded}"


def local_slots(recipe: Recipe) -> tuple[Slot, ...]:
    """Return where trials run on this machine."""
    return slots_of(recipe.search.parallel, this_machine(available_memory()), _needs(recipe))


def _needs(recipe: Recipe) -> Needs:
    """Return what a trial needs on processors.

    A head that learns from kept features keeps one core busy and takes TensorFlow's own memory; a backbone that learns
    uses several, and holds activations and gradients.
    """
    learning = recipe.search.algorithm == "bayesian" or recipe.search.early_stop == "median"
    most = _MAX_LEARNING if learning else _MAX
    # A bake-off computes the features of whole backbones, and times them.
    if recipe.search.algorithm != "bakeoff" and keeps_features(recipe.train):
        return Needs(_HEAD_CORES, _HEAD_MEMORY, most)
    return Needs(_BACKBONE_CORES, _BACKBONE_MEMORY, most)
