"""Plug-ins: objects that other installed packages offer by entry points, found by name and imported when asked for."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from imagetune.errors import ImagetuneError, RecipeError


@dataclass(frozen=True, slots=True)
class PluginKind:
    """A kind of plug-in.

    Attributes:
        group: The entry-point group.
        noun: What one of them is called in messages.
        key: The recipe's key that names one.
    """

    group: str
    noun: str
    key: str


BACKBONES = PluginKind("imagetune.backbones", "backbone", "model.backbone")
LOSSES = PluginKind("imagetune.losses", "loss", "train.loss")
AUGMENTATIONS = PluginKind("imagetune.augmentations", "augmentation preset", "data.augmentation")
TRACKERS = PluginKind("imagetune.trackers", "tracker", "tracking.tracker")


def plugin_names(kind: PluginKind) -> tuple[str, ...]:
    """Return the names of the installed plug-ins of a kind, sorted; none of them is imported."""
    return tuple(sorted(_installed(kind)))


def plugin_package(kind: PluginKind, name: str) -> str | None:
    """Return the package of a plug-in with its version, such as ``our-backbones 1.2``; None where there is none."""
    points = _installed(kind).get(name)
    return _package(points[0]) if points else None


def name_clash(kind: PluginKind, name: str, built_in: Collection[str]) -> str | None:
    """Return why a name is ambiguous: two plug-ins have it, or one and something of ours; None where it isn't."""
    points = _installed(kind).get(name, ())
    rivals = [*(["imagetune itself"] if name in built_in else []), *map(_described, points)]
    if len(rivals) < 2:
        return None
    return (
        f"the {kind.noun} {name!r} is offered twice: by {' and by '.join(rivals)}; "
        "uninstall a package, or rename its entry point"
    )


def load_plugin(kind: PluginKind, name: str) -> Any:
    """Return the object that the entry point ``name`` leads to, importing its module.

    Raises:
        RecipeError: There is none of this name or there are several, or it can't be imported.
    """
    points = _installed(kind).get(name, ())
    if not points:
        hint = f"installed plug-ins: {', '.join(plugin_names(kind)) or 'none'}"
        raise RecipeError(f"there is no plug-in {kind.noun} {name!r}", where=kind.key, hint=hint)
    if clash := name_clash(kind, name, ()):
        raise RecipeError(clash, where=kind.key)
    with plugin_errors(kind, name):
        return points[0].load()


@contextmanager
def plugin_errors(kind: PluginKind, name: str) -> Iterator[None]:
    """Turn whatever a plug-in raises into an error that names its package, its entry point and the reason.

    Raises:
        RecipeError: The plug-in failed.
    """
    try:
        yield
    except (ImagetuneError, MemoryError):
        raise
    # A plug-in is code of others: it may raise anything, and the user has to know whose it is.
    except Exception as error:
        points = _installed(kind).get(name, ())
        whose = _described(points[0]) if points else "a plug-in"
        what = f"the {kind.noun} {name!r} of {whose} fails: {type(error).__name__}: {error}"
        raise RecipeError(what, where=kind.key, hint="mend or uninstall that package, or choose another") from error


def _installed(kind: PluginKind) -> Mapping[str, tuple[EntryPoint, ...]]:
    # A test or a notebook may change the path after the first look.
    return _scan(tuple(sys.path)).get(kind.group, {})


@lru_cache(maxsize=4)
def _scan(path: tuple[str, ...]) -> Mapping[str, Mapping[str, tuple[EntryPoint, ...]]]:  # noqa: ARG001 - the key
    """Return the entry points of our groups by group and name: one reading of all packages' metadata."""
    everything = entry_points()
    found: dict[str, dict[str, tuple[EntryPoint, ...]]] = {}
    for kind in (BACKBONES, LOSSES, AUGMENTATIONS, TRACKERS):
        names = found.setdefault(kind.group, {})
        for point in everything.select(group=kind.group):
            names[point.name] = (*names.get(point.name, ()), point)
    return found


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _described(point: EntryPoint) -> str:
    return f"the package {_package(point)} (entry point {point.name} = {point.value})"
