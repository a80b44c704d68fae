"""Options and arguments that several commands share, so that they are spelled alike everywhere."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click

from imagetune.core import run_files
from imagetune.core.text import format_list


class OutputFile(click.Path):
    """A path to write to: one that is there is replaced only if it is a file of the same kind, and none of a run's."""

    def __init__(self, *suffixes: str) -> None:
        super().__init__(path_type=Path)
        self._suffixes = suffixes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path.

        Raises:
            click.BadParameter: A file of another kind, of a run or of an export is there.
        """
        path = Path(os.fsdecode(super().convert(value, param, ctx)))
        if not path.is_file():
            return path
        if path.suffix.lower() not in self._suffixes:
            what = f"{path} is there already and is no {format_list(self._suffixes)} file"
            self.fail(f"{what}; choose another path, or remove it", param, ctx)
        if any((path.parent / first).is_file() and (path.parent / second).is_file() for first, second in _OWNERS):
            self.fail(f"{path} belongs to a run or an export; choose another path", param, ctx)
        return path


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


class Duration(click.ParamType[float]):
    """A time such as 30m, 2h, 1h30m or 90s, as seconds."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the seconds of a text."""
        parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", str(value))
        seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        if "".join(number + unit for number, unit in parts) != str(value) or seconds <= 0:
            self.fail(f"{value!r} is no time; write it as 30m, 2h, 1h30m or 90s", param, ctx)
        return seconds


# Files that stand together in the folder of a run, of a search and of an export.
_OWNERS = (
    (run_files.RECIPE, run_files.STATUS),
    (run_files.SEARCH, run_files.JOURNAL),
    ("manifest.json", "example.py"),
    # From the folders of predictions and of the model.
    (f"../{run_files.RECIPE}", f"../{run_files.STATUS}"),
)

# Without `exists=True`: loading reports a missing file as it reports every other error of a recipe.
recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
# A text and no path: it may be a runs:/ or models:/ address.
run_argument = click.argument("run")
overrides_option = click.option(
    "-o",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a key of the recipe, such as -o train.batch_size=64; paths start in this folder; repeatable.",
)
with_option = click.option(
    "--with",
    "others",
    multiple=True,
    metavar="RUN",
    help="Another run, whose predicted probabilities are averaged with those of RUN; repeatable.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
max_time_option = click.option(
    "--max-time",
    "max_seconds",
    type=Duration(),
    help="Stop after this time, such as 2h, with exit code 75: the same command with --resume goes on.",
)
