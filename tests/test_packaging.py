"""What the wheel takes along."""

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_listed_for_the_wheel():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = set(config["options"]["packages"].split())
    there = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "imagetune").rglob("__init__.py")}
    assert listed == there | {"imagetune.shipped"}


def test_every_template_is_taken_along():
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    taken = config["options.package_data"]
    for folder in (ROOT / "imagetune").rglob("templates"):
        package = ".".join(folder.parent.relative_to(ROOT).parts)
        assert "templates/*" in taken[package]


def test_the_root_of_the_package_stays_small():
    # What type checkers and `python -m` look for at that place has nothing in it that a reader would.
    entries = [
        path for path in (ROOT / "imagetune").iterdir() if path.name not in ("__pycache__", "__main__.py", "py.typed")
    ]
    assert len(entries) <= 18


def test_folders_hold_about_twenty_modules():
    for folder in {file.parent for file in (ROOT / "imagetune").rglob("*.py")}:
        assert len(list(folder.glob("*.py"))) <= 22, folder
