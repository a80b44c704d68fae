"""Check before a search that its backbones have the blocks and layers that its stages unfreeze."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass

from imagetune.core.processes import hide_main_module, prepare_worker
from imagetune.errors import RecipeError
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.sections.search import Value
from imagetune.recipe.unfreeze import parse_unfreeze
from imagetune.runs.checks.spaces import explain_error, list_tried_settings
from imagetune.search.executors.processes import get_start_context
from imagetune.search.trial_process.forkserver import start_trial_forkserver

_Unfreeze = str | tuple[str, ...]


@dataclass(frozen=True)
class _Missing:
    """A block or layer that a backbone lacks: what the stage unfreezes, and the error's message and hint."""

    unfreeze: _Unfreeze
    what: str
    hint: str


def check_blocks(loaded: LoadedRecipe) -> None:
    """Check what every stage unfreezes against the layers of its backbone, for each value of each search space.

    Backbones are built only where a stage names blocks or layers, or counts blocks, and in a process of their own: this
    one leaves the GPUs and their memory to the trials.

    Raises:
        RecipeError: A backbone lacks a block; the others that are missing are in ``also``.
    """
    errors: dict[tuple[str, _Unfreeze], RecipeError] = {}
    wanted = _collect_unfrozen(loaded)
    for backbone, missing in _find_missing(list(wanted)).items():
        for one in missing:
            tried, at, settings, path = wanted[backbone, one.unfreeze]
            found = tried.error(at, one.what, hint=one.hint)
            if path is not None:
                found = explain_error(found, settings, path, loaded.spaces[path])
            errors[backbone, one.unfreeze] = found
    if errors:
        # In the recipe's order: the findings come grouped by backbone.
        first, *others = (errors[key] for key in wanted if key in errors)
        raise first.with_also(tuple(others))


_Place = tuple[LoadedRecipe, NodePath, dict[NodePath, Value], NodePath | None]


def _collect_unfrozen(loaded: LoadedRecipe) -> dict[tuple[str, _Unfreeze], _Place]:
    """Return each backbone with what is unfrozen of it, and the first recipe, stage and setting that does so."""
    found: dict[tuple[str, _Unfreeze], _Place] = {}
    # The defaults come first, so that a block which they lack already isn't blamed on a search space.
    tries: list[tuple[NodePath | None, dict[NodePath, Value]]] = [(None, {}), *list_tried_settings(loaded)]
    for path, settings in tries:
        tried = loaded.with_values(settings) if settings else loaded
        for index, stage in enumerate(tried.recipe.train.stages):
            wanted = parse_unfreeze(stage.unfreeze)
            # `none` and `all` fit every backbone: for them none is built.
            if wanted.names or wanted.last_blocks:
                key = (tried.recipe.model.backbone, stage.unfreeze)
                found.setdefault(key, (tried, ("train", "stages", index, "unfreeze"), settings, path))
    return found


def _find_missing(wanted: Sequence[tuple[str, _Unfreeze]]) -> dict[str, list[_Missing]]:
    if not wanted:
        return {}
    asked: dict[str, list[_Unfreeze]] = {}
    for backbone, unfreeze in wanted:
        asked.setdefault(backbone, []).append(unfreeze)
    start_trial_forkserver()
    # A process that dies, as for want of memory, leaves the check to the trials: it must not stop the search.
    with (
        suppress(BrokenProcessPool),
        ProcessPoolExecutor(1, mp_context=get_start_context(), initializer=_prepare) as pool,
    ):
        # Otherwise the new process would run the program that called the Python API again.
        with hide_main_module():
            found = pool.map(_list_missing, asked.keys(), asked.values())
        return dict(zip(asked, found, strict=True))
    return {}


def _prepare() -> None:
    prepare_worker()
    # Building layers needs no GPU, and TensorFlow would take the memory of one that the trials are about to use.
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _list_missing(name: str, asked: Sequence[_Unfreeze]) -> list[_Missing]:
    """Build a backbone with random weights, and return which of the blocks and layers asked for it lacks."""
    from imagetune.model.backbones.table import get_backbone
    from imagetune.model.build import build_backbone
    from imagetune.model.trainable import find_unfrozen_layers

    backbone = get_backbone(name)
    # Blocks and layers have the same names at every size: the smallest takes the least memory.
    network = build_backbone(backbone, (backbone.min_size, backbone.min_size))
    missing = []
    for unfreeze in asked:
        try:
            find_unfrozen_layers(network, backbone, unfreeze)
        except RecipeError as error:
            missing.append(_Missing(unfreeze, error.what, error.hint))
    return missing
