"""HEIC photos, which Pillow reads with the optional package pi-heif."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version

# The decoder alone; pillow-heif, which may be there already, also writes HEIC, and its wheels are under the GPL.
_PACKAGES = ("pi_heif", "pillow_heif")


def register_heic_reader() -> str:
    """Return name and version of the package that Pillow now reads HEIC by; "" where none is installed."""
    for name in _PACKAGES:
        try:
            import_module(name).register_heif_opener()
        except ImportError:
            continue
        return f"{name} {version(name)}"
    return ""
