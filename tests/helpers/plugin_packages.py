"""Packages with plug-ins, installed into a folder as pip would do it, without pip and without a network."""

import shutil
import tomllib
from pathlib import Path

EXAMPLE = Path(__file__).parents[1] / "plugin_package"


def install_example(folder: Path) -> Path:
    """Install the package of docs/plugins.md into ``folder``, and return it."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    shutil.copytree(EXAMPLE / "imagetune_example", folder / "imagetune_example")
    return write_metadata(folder, project["name"], project["version"], project["entry-points"])


def install_module(folder: Path, name: str, group: str, points: dict[str, str], source: str) -> Path:
    """Install a package of one module, `name` with underscores, whose entry points lead to names in it."""
    module = name.replace("-", "_")
    write_metadata(folder, name, "0.3", {group: {point: f"{module}:{made}" for point, made in points.items()}})
    (folder / f"{module}.py").write_text(source, encoding="utf-8")
    return folder


def write_metadata(folder: Path, name: str, version: str, groups: dict[str, dict[str, str]]) -> Path:
    """Write the .dist-info of a package, and return the folder that goes on the path."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    sections = (
        f"[{group}]\n" + "".join(f"{point} = {value}\n" for point, value in points.items())
        for group, points in groups.items()
    )
    (metadata / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
    return folder
