"""Plug-ins: objects that installed packages provide by entry points, listed by name and imported only when used."""

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
    """A kind of plug-in, such as backbones.

    Attributes:
        group: The group of the entry points.
        noun: The word for a plug-in of this kind in messages.
        key: The recipe key that names one.
    """

    group: str
    noun: str
    key: str


BACKBONES = PluginKind("imagetune.backbones", "backbone", "model.backbone")
LOSSES = PluginKind("imagetune.losses", "loss", "train.loss")
AUGMENTATIONS = PluginKind("imagetune.augmentations", "augmentation preset", "data.augmentation")
TRACKERS = PluginKind("imagetune.trackers", "tracker", "tracking.tracker")


def list_plugin_names(kind: PluginKind) -> tuple[str, ...]:
    """Return the names of the installed plug-ins of a kind, sorted, without importing them."""
    return tuple(sorted(_find_entry_points(kind)))


def describe_plugin_package(kind: PluginKind, name: str) -> str | None:
    """Return a plug-in's package and version, such as ``our-backbones 1.2``; None if no such plug-in is installed."""
    points = _find_entry_points(kind).get(name)
    return _format_package(points[0]) if points else None


def find_name_clash(kind: PluginKind, name: str, built_in: Collection[str]) -> str | None:
    """Return why a name is ambiguous, because two plug-ins or a plug-in and a built-in have it; None if it isn't."""
    points = _find_entry_points(kind).get(name, ())
    rivals = [*(["imagetune itself"] if name in built_in else []), *map(_describe, points)]
    if len(rivals) < 2:
        return None
    return (
        f"the {kind.noun} {name!r} is offered twice: by {' and by '.join(rivals)}; "
        "uninstall one of the packages, or rename its entry point"
    )


def load_plugin(kind: PluginKind, name: str) -> Any:
    """Return the object of the entry point ``name``, importing its module.

    Raises:
        RecipeError: There is no plug-in of this name or several, or its module can't be imported.
    """
    points = _find_entry_points(kind).get(name, ())
    if not points:
        hint = f"installed plug-ins: {', '.join(list_plugin_names(kind)) or 'none'}"
        raise RecipeError(f"there is no plug-in {kind.noun} {name!r}", where=kind.key, hint=hint)
    if clash := find_name_clash(kind, name, ()):
        raise RecipeError(clash, where=kind.key)
    with convert_plugin_errors(kind, name):
        return points[0].load()


@contextmanager
def convert_plugin_errors(kind: PluginKind, name: str) -> Iterator[None]:
    """Convert errors of a plug-in in the block to one that names its package, its entry point and the reason.

    Raises:
        RecipeError: The plug-in raised an error.
    """
    try:
        yield
    # Our own errors already say what to do, and a lack of memory is not the plug-in's fault.
    except (ImagetuneError, MemoryError):
        raise
    # Code of others may raise anything, and the user must learn which package to blame.
    except Exception as error:
        points = _find_entry_points(kind).get(name, ())
        whose = _describe(points[0]) if points else "a plug-in"
        what = f"the {kind.noun} {name!r} of {whose} fails: {type(error).__name__}: {error}"
        raise RecipeError(what, where=kind.key, hint="fix or uninstall that package, or choose another") from error


def _find_entry_points(kind: PluginKind) -> Mapping[str, tuple[EntryPoint, ...]]:
    # Tests and notebooks may change sys.path later, so it is the key of the cached scan.
    return _scan_packages(tuple(sys.path)).get(kind.group, {})


# A scan reads the metadata of every installed package, so that a recipe's several questions share one.
@lru_cache(maxsize=4)
def _scan_packages(path: tuple[str, ...]) -> Mapping[str, Mapping[str, tuple[EntryPoint, ...]]]:  # noqa: ARG001 - the key
    """Return the entry points by group and name, from one reading of all packages' metadata."""
    everything = entry_points()
    found: dict[str, dict[str, tuple[EntryPoint, ...]]] = {}
    for kind in (BACKBONES, LOSSES, AUGMENTATIONS, TRACKERS):
        names = found.setdefault(kind.group, {})
        for point in everything.select(group=kind.group):
            names[point.name] = (*names.get(point.name, ()), point)
    return found


def _format_package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"


def _describe(point: EntryPoint) -> str:
    return f"the package {_format_package(point)} (entry point {point.name} = {point.value})"
