"""The plug-ins that a recipe uses, with their package versions."""

from __future__ import annotations

from imagetune.core.plugins import AUGMENTATIONS, BACKBONES, LOSSES, TRACKERS, describe_plugin_package
from imagetune.recipe.schema import Recipe


def find_used_plugins(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Return package and version of every plug-in that a recipe names, by entry-point group and name."""
    own = [stage.augmentation for stage in recipe.train.stages]
    named = {
        BACKBONES: [recipe.model.backbone],
        LOSSES: [recipe.train.loss.name],
        AUGMENTATIONS: [name for name in (recipe.data.augmentation, *own) if isinstance(name, str)],
        TRACKERS: recipe.tracking.plugin_trackers,
    }
    found = {
        kind.group: {name: package for name in names if (package := describe_plugin_package(kind, name))}
        for kind, names in named.items()
    }
    return {group: packages for group, packages in found.items() if packages}
