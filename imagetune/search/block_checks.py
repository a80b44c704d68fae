"""Whether the backbones of a search have the blocks that its stages name, before a trial finds out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass

from imagetune.core.processes import prepare_worker, without_main_module
from imagetune.errors import RecipeError
from imagetune.recipe.document import NodePath
from imagetune.recipe.loading import LoadedRecipe
from imagetune.recipe.search import Value
from imagetune.recipe.unfreeze import parse_unfreeze
from imagetune.runs.checks.spaces import explained, tried_settings
from imagetune.search.executors.forkserver import warm_up_trials
from imagetune.search.executors.processes import start_method

_Unfreeze = str | tuple[str, ...]


@dataclass(frozen=True)
class _Missing:
    """A block that there is not: what is unfrozen, and what to say of it."""

    unfreeze: _Unfreeze
    what: str
    hint: str


def check_blocks(loaded: LoadedRecipe) -> None:
    """Check what every stage unfreezes, each value of each space at a time, in the backbones themselves.

    Backbones are built only where a stage names blocks or layers, or counts blocks, and in a process of their own: this
    one leaves the GPUs and their memory to the trials.

    Raises:
        RecipeError: A backbone lacks a block; the others that are missing are in ``also``.
    """
    errors: dict[tuple[str, _Unfreeze], RecipeError] = {}
    wanted = _wanted(loaded)
    for backbone, missing in _missing_of(list(wanted)).items():
        for one in missing:
            tried, at, settings, path = wanted[backbone, one.unfreeze]
            found = tried.error(at, one.what, hint=one.hint)
            told = found if path is None else explained(found, settings, path, loaded.spaces[path])
            errors[backbone, one.unfreeze] = told
    if errors:
        first, *others = (errors[key] for key in wanted if key in errors)
        raise first.with_also(tuple(others))


_Place = tuple[LoadedRecipe, NodePath, dict[NodePath, Value], NodePath | None]


def _wanted(loaded: LoadedRecipe) -> dict[tuple[str, _Unfreeze], _Place]:
    """Return backbones with what is unfrozen of them, and the first recipe, stage and setting that asks for it."""
    found: dict[tuple[str, _Unfreeze], _Place] = {}
    tries: list[tuple[NodePath | None, dict[NodePath, Value]]] = [(None, {}), *tried_settings(loaded)]
    for path, settings in tries:
        tried = loaded.with_values(settings) if settings else loaded
        for index, stage in enumerate(tried.recipe.train.stages):
            wanted = parse_unfreeze(stage.unfreeze)
            if wanted.names or wanted.last_blocks:
                key = (tried.recipe.model.backbone, stage.unfreeze)
                found.setdefault(key, (tried, ("train", "stages", index, "unfreeze"), settings, path))
    return found


def _missing_of(wanted: Sequence[tuple[str, _Unfreeze]]) -> dict[str, list[_Missing]]:
    if not wanted:
        return {}
    asked: dict[str, list[_Unfreeze]] = {}
    for backbone, unfreeze in wanted:
        asked.setdefault(backbone, []).append(unfreeze)
    warm_up_trials()
    # Where the process dies, as for want of memory, trials will find the same.
    with (
        suppress(BrokenProcessPool),
        ProcessPoolExecutor(1, mp_context=start_method(), initializer=_prepare) as pool,
    ):
        with without_main_module():
            found = pool.map(_missing, asked.keys(), asked.values())
        return dict(zip(asked, found, strict=True))
    return {}


def _prepare() -> None:
    prepare_worker()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


def _missing(name: str, asked: Sequence[_Unfreeze]) -> list[_Missing]:
    from imagetune.model.backbones.table import get_backbone
    from imagetune.model.build import build_backbone
    from imagetune.model.trainable import chosen_layers

    backbone = get_backbone(name)
    network = build_backbone(backbone, (backbone.min_size, backbone.min_size))
    missing = []
    for unfreeze in asked:
        try:
            chosen_layers(network, backbone, unfreeze)
        except RecipeError as error:
            missing.append(_Missing(unfreeze, error.what, error.hint))
    return missing
