"""Choice of the executor: local processes or Ray, and how many trials run in parallel."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imagetune.core.messages import Say
from imagetune.core.processes import count_usable_cores
from imagetune.core.text import format_count
from imagetune.recipe.schema import Recipe
from imagetune.recipe.sections.search import SearchConfig
from imagetune.runs.prepare import Data
from imagetune.search.executors.processes import Processes
from imagetune.search.executors.protocol import Executor, Work
from imagetune.search.executors.ray_cluster import RayTasks, check_cluster
from imagetune.search.executors.slots import Needs, Slot, plan_slots, this_machine
from imagetune.search.trial_process.forkserver import PRELOADED, start_trial_forkserver
from imagetune.search.trial_process.run import run_trial
from imagetune.search.trial_process.shared import Shared
from imagetune.training.feature_cache.features import caches_features
from imagetune.training.measure.batch_size import measure_available_memory

_GIB = 2**30
# Roughly: TensorFlow itself takes about a GiB, and a backbone that is trained holds its activations and gradients.
_HEAD_CORES, _HEAD_MEMORY = 1, _GIB
_BACKBONE_CORES, _BACKBONE_MEMORY = 4, 4 * _GIB
# With more trials in parallel, Bayesian search proposes from fewer results and median stopping compares with fewer.
_MAX, _MAX_ADAPTIVE = 16, 4


def prepare_executor(recipe: Recipe) -> None:
    """Check that the Ray cluster can be reached, or start the forkserver, while this process does other things.

    Raises:
        ResourceError: Ray isn't installed, or its cluster can't be reached.
    """
    if recipe.search.executor == "ray":
        check_cluster(recipe.search.ray)
    else:
        start_trial_forkserver()


@contextmanager
def open_executor(recipe: Recipe, data: Data, *, say: Say) -> Iterator[Executor]:
    """Open the executor that runs the trials of a search, and close it at the end of the block.

    Args:
        recipe: The search's recipe, spaces at their defaults.
        data: The images of the search.
        say: Prints a line for the user.

    Raises:
        ResourceError: The Ray cluster that the recipe names can't be reached, or is too small.
    """
    work = functools.partial(run_trial, Shared(data, recipe.search))
    executor = (
        _open_ray(recipe.search, work, say) if recipe.search.executor == "ray" else _open_processes(recipe, work, say)
    )
    try:
        yield executor
    finally:
        executor.close()


def _open_processes(recipe: Recipe, work: Work, say: Say) -> Executor:
    slots = plan_local_slots(recipe)
    if len(slots) > 1:
        say("trials", describe_slots(slots, count_usable_cores()))
    return Processes(work, slots, preload=PRELOADED)


def _open_ray(search: SearchConfig, work: Work, say: Say) -> Executor:
    executor = RayTasks(work, search.ray, parallel=search.parallel)
    say("trials", f"{executor.slots} at a time on the Ray cluster")
    return executor


def describe_slots(slots: Sequence[Slot], cores: int) -> str:
    """Return in words how many trials run at a time, and on which GPUs or cores."""
    # Only slots on GPUs have variables of their own.
    if any(slot.environment for slot in slots):
        return f"{len(slots)} at a time: {', '.join(slot.place for slot in slots)}"
    # The user's number is taken, and its price said.
    crowded = "; more trials than cores, so that each takes longer" if len(slots) > cores else ""
    return f"{len(slots)} at a time on {format_count(cores, 'core')}{crowded}"


def plan_local_slots(recipe: Recipe) -> tuple[Slot, ...]:
    """Return the slots of this machine for the trials of a recipe, one trial at a time in each."""
    return plan_slots(recipe.search.parallel, this_machine(measure_available_memory()), _needs(recipe))


def _needs(recipe: Recipe) -> Needs:
    """Return the cores and the memory that a trial needs on a machine without a GPU.

    A head that is trained on cached features keeps one core busy; a backbone that is trained uses several.
    """
    adaptive = recipe.search.algorithm == "bayesian" or recipe.search.early_stop == "median"
    most = _MAX_ADAPTIVE if adaptive else _MAX
    # A bake-off computes the features of whole backbones, and times them.
    if recipe.search.algorithm != "bakeoff" and caches_features(recipe.train):
        return Needs(_HEAD_CORES, _HEAD_MEMORY, most)
    return Needs(_BACKBONE_CORES, _BACKBONE_MEMORY, most)
