"""The installed distribution: its name, its version, and what to install of it.

The distribution is `imagetune-keras`, as the name `imagetune` belongs to another program on PyPI. It has the command
and the import `imagetune`, and so has the other: the two can't be installed side by side.
"""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution, version

from imagetune.errors import ResourceError

DISTRIBUTION = "imagetune-keras"
"""The name to install."""
_NAMESAKE = "imagetune"
_COMMAND = "imagetune.cli.main:main"


def read_version() -> str:
    """Return the version of the installed package; ``0+unknown`` for a source tree that was never installed."""
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+unknown"


def name_extra(extra: str) -> str:
    """Return the command that installs an extra: ``pip install 'imagetune-keras[ray]'``."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def refuse_namesake() -> None:
    """Refuse to run where the other program of our name is installed, whose files lie among ours.

    Raises:
        ResourceError: It is installed; the hint says how to repair the installation.
    """
    other = _find_namesake()
    if other is not None:
        what = f"another program of this name, {_NAMESAKE} {other.version}, is installed among our files"
        hint = f"`pip uninstall {_NAMESAKE}`, then `pip install --force-reinstall --no-deps {DISTRIBUTION}`"
        raise ResourceError(what, where="installation", hint=hint)


def _find_namesake() -> Distribution | None:
    try:
        found = distribution(_NAMESAKE)
    except PackageNotFoundError:
        return None
    # A checkout that was installed before our distribution had its name is ours.
    return None if any(point.value == _COMMAND for point in found.entry_points) else found
