"""All cases, by the modules that make them, and what they share."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import subprocess
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from tests.faults.attack.case import Case

MODULES: tuple[str, ...] = (
    *("command_lines", "environments", "folders", "images", "recipes"),
    *("run_folders", "search_folders", "servers", "stores", "tables", "weights"),
)
"""Modules of this package, each with a function ``cases()``."""
QUICK_SHARE = 10
"""One case of so many is run by `make test`, too."""


def find_cases(pattern: str = "") -> Sequence[Case]:
    """Return the cases whose name contains a regular expression, all of them for an empty one.

    Raises:
        ValueError: Two cases have the same name.
    """
    cases = [case for name in MODULES for case in import_module(f"tests.faults.attack.{name}").cases()]
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"names of more than one case: {sorted(twice)}")
    return [case for case in cases if re.search(pattern, case.name)]


def is_quick(case: Case) -> bool:
    """Return whether a case belongs to the tenth that `make test` runs: the same ones on every machine."""
    return int(hashlib.sha256(case.name.encode()).hexdigest(), 16) % QUICK_SHARE == 0


def make_shared(folder: Path) -> None:
    """Fill an empty folder with what all cases share: images, a recipe on them and a finished run of it."""
    from colours import RECIPE
    from tiny_backbones import tiny_backbones

    from imagetune.cli.main import run
    from tests.conftest import draw_images

    draw_images(folder / "images")
    draw_images(folder / "new_images", count=4, seed=1)
    (folder / "matplotlib").mkdir()
    (folder / "recipe.yaml").write_text(
        RECIPE.format(source=folder / "images") + "tracking: {enabled: false}\n", encoding="utf-8"
    )
    with contextlib.chdir(folder), tiny_backbones(), contextlib.redirect_stdout(io.StringIO()):
        assert run(["fit", "recipe.yaml", "--run-dir", "run"]) == 0


def empty_folder(path: Path) -> Path:
    """Return a path at which nothing is any more, whatever was there."""
    # A case may leave folders that only their mode protects, and more of them in each other than Python's own functions
    # can go down.
    subprocess.run(["chmod", "-R", "u+rwx", path], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", path], check=True)
    return path
