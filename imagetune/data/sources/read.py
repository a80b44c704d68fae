"""Reading of data sources into a catalog: every image with its label, given split and group.

Five kinds of sources are supported: a folder of class folders; a folder already split into train, val and test; a CSV
or Parquet table; a folder with a ``metadata.csv`` as Hugging Face's ImageFolder writes it; a folder whose images have
JSON label files beside them. Only tables and JSON files are opened here, and nothing is ever written.
"""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.core.files import is_file, is_folder, path_exists
from imagetune.core.messages import Say, say_nothing
from imagetune.core.path_names import find_spelling
from imagetune.core.text import format_count, format_list, suggest_name
from imagetune.data.findings import Finding
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.folders import read_folder
from imagetune.data.sources.image_list import list_images
from imagetune.data.sources.labels import build_label_rule, canonicalize_labels, order_classes
from imagetune.data.sources.missing import build_path_error
from imagetune.data.sources.tables import read_table
from imagetune.errors import DataError
from imagetune.recipe.source_kinds import TABLE_SUFFIXES

if TYPE_CHECKING:
    from imagetune.recipe.sections.data import DataConfig


def read_catalog(config: DataConfig, *, min_classes: int = 2) -> Catalog:
    """Return the catalog of ``config.source``.

    Args:
        config: The recipe's data section; ``source`` is an absolute path.
        min_classes: Minimum number of classes; below 2, which is for testing a model, classes of ``config.classes`` may
            be absent.

    Raises:
        DataError: The source doesn't exist or has no images, a class folder is empty, a table lacks a column, the name
            of a split is unknown, a class of ``config.classes`` has no images, or a regression label is not a number.
        RecipeError: The order of ordinal classes is unknown.
    """
    source = Path(find_spelling(config.source))
    if not path_exists(source):
        raise build_path_error(source)
    if is_folder(source):
        catalog = read_folder(source, config)
    elif not is_file(source):
        raise DataError("is a pipe or device; expected a folder, .csv or .parquet", where=str(source))
    elif source.suffix.lower() in TABLE_SUFFIXES:
        catalog = read_table(source, config)
    else:
        what = f"is a {source.suffix or 'plain'} file; expected a folder, .csv or .parquet"
        raise DataError(what, where=str(source), hint="set data.source to the folder of class folders or to the table")
    catalog = _canonicalize(catalog, config, required=min_classes > 1)
    if not catalog.records:
        raise DataError("contains no images", where=str(source))
    if config.columns.slices and not catalog.records[0].slices:
        what = f"has no columns, but data.columns.slices names {format_list(config.columns.slices)}"
        raise DataError(what, where=str(source), hint="slices by columns need a table; remove data.columns.slices")
    _require_classes(catalog, source, min_classes)
    if config.classes is None:
        order_classes(catalog.labels, config)
    return replace(catalog, findings=catalog.findings + _find_lookalike_labels(catalog))


def require_paths(paths: Iterable[str]) -> None:
    """Raise DataError for the first of some files, folders and globs that isn't there; no folder is searched."""
    for word in paths:
        path = Path(find_spelling(str(Path(word).expanduser().absolute())))
        if not (path.exists() or path.is_symlink() or glob.has_magic(word)):
            raise build_path_error(path)


def find_images(paths: Sequence[str], *, say: Say = say_nothing) -> tuple[str, ...]:
    """Return the image files that the arguments of a command line name.

    Args:
        paths: As for `imagetune.data.sources.image_list.list_images`.
        say: Receives what was passed over in folders, and why.

    Returns:
        Absolute paths, as `list_images`, which is for those that may be millions.

    Raises:
        DataError: A path doesn't exist, or no image is found.
        ResourceError: As from `list_images`.
    """
    with list_images(paths, say=say) as images:
        return tuple(images)


def require_no_overwrite(outputs: Iterable[Path], images: Iterable[str]) -> None:
    """Raise an error if an output would overwrite one of the images.

    Raises:
        DataError: One of ``outputs`` is the same file as one of ``images``, also through links.
    """
    # By device and inode, and of the outputs: of a million images nothing is kept.
    there = {identity: output for output in outputs if (identity := _identify_file(output))}
    for image in images if there else ():
        output = there.get(_identify_file(image) or (0, 0))
        if output is not None:
            what = "is one of the images, which imagetune never overwrites"
            raise DataError(what, where=str(output), hint="name another path")


def _identify_file(path: str | Path) -> tuple[int, int] | None:
    """Return device and inode of a file, also through links; None where there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a million paths as objects would take twice the time
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def build_unreadable_error() -> DataError:
    """Return the error for images of which none could be decoded; the reason of each was reported before."""
    return DataError("none of the images can be read", hint="the reason for each image is given above")


def _canonicalize(catalog: Catalog, config: DataConfig, *, required: bool) -> Catalog:
    """Return the catalog with canonical labels, only of the recipe's classes, and without repeated rows."""
    ruled = replace(catalog, rule=build_label_rule(config))
    chosen = _select_classes(ruled, config.classes, required=required)
    return _drop_repeated(replace(chosen, records=canonicalize_labels(chosen.records, config)))


def _select_classes(catalog: Catalog, classes: Sequence[str] | None, *, required: bool) -> Catalog:
    if classes is None:
        return catalog
    counts = catalog.rule.counts(record.label for record in catalog.records)
    for name in classes:
        if required and not counts[name]:
            hint = suggest_name(name, counts) or f"available: {format_list(sorted(counts), most=12)}"
            raise DataError(f"data.classes names {name!r}, which has no images", where=str(catalog.root), hint=hint)
    wanted = frozenset(classes)
    left_out = sorted(set(counts) - wanted)
    if not left_out:
        return catalog
    if catalog.rule.task == "multi_label":
        title = f"{format_count(len(left_out), 'label')} left out by data.classes; their images stay"
        note = Finding("class-left-out", "note", title, f"left out: {format_list(left_out, most=12)}")
        return replace(catalog, findings=(*catalog.findings, note))
    kept = tuple(record for record in catalog.records if record.label in wanted)
    dropped = len(catalog.records) - len(kept)
    classes_out = format_count(len(left_out), "class", "classes")
    title = f"{format_count(dropped, 'image')} of {classes_out} left out by data.classes"
    note = Finding("class-left-out", "note", title, f"left out: {format_list(left_out, most=12)}")
    return replace(catalog, records=kept, findings=(*catalog.findings, note))


def _drop_repeated(catalog: Catalog) -> Catalog:
    # Unique paths rule repetitions out, and hashing a million paths is faster than hashing whole records.
    if len({record.path for record in catalog.records}) == len(catalog.records):
        return catalog
    # Only equal records are repeated: rows of one path with different labels are a conflict, which the audit reports.
    kept = tuple(dict.fromkeys(catalog.records))
    if len(kept) == len(catalog.records):
        return catalog
    counts = Counter(catalog.records)
    title = f"{format_count(len(catalog.records) - len(kept), 'repeated row')} left out"
    paths = tuple(record.path for record, count in counts.items() if count > 1)
    note = Finding("repeated-row", "note", title, "the same path, label, split and group as an earlier row", paths)
    return replace(catalog, records=kept, findings=(*catalog.findings, note))


def _require_classes(catalog: Catalog, source: Path, min_classes: int) -> None:
    labels, task = catalog.labels, catalog.rule.task
    if len(labels) >= (1 if task in ("multi_label", "regression") else min_classes):
        return
    if not labels:
        what = "no image has a label"
        raise DataError(what, where=str(source), hint="check whether data.columns.label is the right column")
    what = f"has only the class {labels[0]!r}; a classifier needs at least {min_classes}"
    raise DataError(what, where=str(source), hint="set data.source to the folder that contains a folder for each class")


def _find_lookalike_labels(catalog: Catalog) -> tuple[Finding, ...]:
    by_folded: dict[str, list[str]] = {}
    for label in catalog.labels:
        # NFKC and casefolding also match ligatures, full-width letters and ß with ss.
        folded = unicodedata.normalize("NFKC", label).casefold().replace("_", " ").replace("-", " ")
        by_folded.setdefault(" ".join(folded.split()), []).append(label)
    return tuple(
        Finding(
            "lookalike-labels",
            "warning",
            f"the classes {' and '.join(map(repr, names))} differ only in spelling",
            "they are treated as different classes",
            tuple(one.path for one in catalog.records if not set(names).isdisjoint(catalog.rule.names(one.label))),
            "give them one name if they mean the same",
        )
        for names in by_folded.values()
        if len(names) > 1
    )
