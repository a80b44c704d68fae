"""The version of the installed package, apart from the public names, so that what lies below them can ask for it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def read_version() -> str:
    """Return the version of the installed package; ``0+unknown`` for a source tree that was never installed."""
    try:
        return version("imagetune")
    except PackageNotFoundError:
        return "0+unknown"
