"""imagetune: fine-tune image models from one recipe file, with an honest test, tracking in MLflow and a report.

>>> import imagetune
>>> run = imagetune.fit("quickstart.yaml")  # doctest: +SKIP
>>> run.predict("holiday/")  # doctest: +SKIP

`fit`, `auto`, `search`, `load`, `predict`, `evaluate`, `compare`, `verify` and `export` are the functions of the
command line for programs and notebooks. Nothing is imported before it is used: this module takes milliseconds.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from imagetune import errors
    from imagetune.api.functions import auto, compare, evaluate, export, fit, load, predict, search, verify
    from imagetune.errors import (
        BadImageError,
        CheckpointError,
        DataError,
        DivergedError,
        GateError,
        ImagetuneError,
        ModelFileError,
        RecipeError,
        ResourceError,
        SearchError,
        StoppedError,
        TrackingError,
        WeightsError,
    )
    from imagetune.recipe.schema import Recipe

    __version__: str

__all__ = [
    "BadImageError",
    "CheckpointError",
    "DataError",
    "DivergedError",
    "GateError",
    "ImagetuneError",
    "ModelFileError",
    "Recipe",
    "RecipeError",
    "ResourceError",
    "SearchError",
    "StoppedError",
    "TrackingError",
    "WeightsError",
    "__version__",
    "auto",
    "compare",
    "errors",
    "evaluate",
    "export",
    "fit",
    "load",
    "predict",
    "search",
    "verify",
]

_FUNCTIONS = ("auto", "compare", "evaluate", "export", "fit", "load", "predict", "search", "verify")


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from imagetune.core.version import read_version

        return read_version()
    if name == "errors":
        return import_module("imagetune.errors")
    if name in _FUNCTIONS:
        return getattr(import_module("imagetune.api.functions"), name)
    if name == "Recipe":
        return import_module("imagetune.recipe.schema").Recipe
    if name in __all__:
        return getattr(import_module("imagetune.errors"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """This module, in which a function keeps its name although a package has the same one."""

    def __setattr__(self, name: str, value: object) -> None:
        # Importing anything from the package imagetune.search would put it in the place of the function.
        if not (name in _FUNCTIONS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
