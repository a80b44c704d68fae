"""The splits of a set: made once by imagetune's own rule, then the same for all rows."""

from __future__ import annotations

import csv
import shutil
from functools import partial
from pathlib import Path

from benchmarks.packages import find_package
from benchmarks.quality.sets import find_set
from benchmarks.quality.sets.build import build_set
from imagetune.core.files import replace_atomically
from imagetune.core.messages import say_nothing

SHARES = {"val": 0.15, "test": 0.25, "method": "stratified"}


def provide_split(name: str, seed: int, work: Path) -> Path:
    """Return the table of a set with a column of splits, made where it isn't there yet; see `provide_folders`.

    The splits are stratified, 60/15/25, and part neither groups nor near-duplicates.

    Raises:
        SetMissingError: A package that carries the set can't be had.
    """
    images = find_set(name)
    source = build_set(images, partial(find_package, work=work), work / "sets" / name)
    table = source.parent / f"split-{seed}.csv"
    if not table.exists():
        _write_split(source, seed, table)
    return table


def provide_folders(table: Path) -> Path:
    """Return a folder with train, val and test, a folder a class in each; its images are links to a table's."""
    folder = table.with_suffix("")
    if folder.exists():
        return folder
    unfinished = folder.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        # All classes in all splits, so that their numbers are the same.
        for split in ("train", "val", "test"):
            (unfinished / split / row["label"]).mkdir(parents=True, exist_ok=True)
        source = (table.parent / row["path"]).absolute()
        (unfinished / row["split"] / row["label"] / source.name).symlink_to(source)
    return unfinished.rename(folder)


def _write_split(source: Path, seed: int, table: Path) -> None:
    from imagetune.data.splits.holdout import open_holdout
    from imagetune.recipe.schema import Recipe
    from imagetune.runs.prepare import read_data

    data = {"source": str(source), "split": SHARES}
    recipe = Recipe.model_validate({"name": table.stem, "seed": seed, "data": data})
    splits = read_data(recipe, say=say_nothing).splits
    sides = {"train": splits.train, "val": splits.val, "test": open_holdout(splits)}
    with replace_atomically(table) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "split", "group"))
        for side, records in sides.items():
            for record in records:
                path = Path(record.path).relative_to(source.parent)
                writer.writerow((path, record.label, side, record.group))
