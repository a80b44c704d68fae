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

from imagetune.core.files import is_file, is_folder, is_link, path_exists
from imagetune.core.messages import Say, say_nothing
from imagetune.core.path_names import expand_home, find_spelling
from imagetune.core.text import format_count, format_list, suggest_name
from imagetune.data.findings import Finding
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.folders import build_walk_findings, read_folder
from imagetune.data.sources.image_files import is_image_file
from imagetune.data.sources.labels import build_label_rule, canonicalize_labels, order_classes
from imagetune.data.sources.tables import read_table
from imagetune.data.sources.walking import Walk, list_names, walk_folders, walk_images
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
        raise _build_path_error(source)
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
            raise _build_path_error(path)


def find_images(paths: Sequence[str], *, say: Say = say_nothing) -> tuple[str, ...]:
    """Return the image files that the arguments of a command line name.

    Args:
        paths: Files (with any suffix), folders (searched recursively), and globs with ``*``, ``?`` or ``**``.
        say: Receives what was passed over in folders, and why.

    Returns:
        Absolute paths, each once; those of a folder or a glob are sorted.

    Raises:
        DataError: A path doesn't exist, or no image is found.
    """
    found: dict[str, None] = {}
    walk, seen = Walk(), set[tuple[int, int]]()
    for word in paths:
        path = Path(find_spelling(str(expand_home(word).absolute())))
        if is_folder(path):
            found.update(dict.fromkeys(_walk_images(path, walk, seen)))
        elif os.path.lexists(path):
            found[str(path)] = None
        elif glob.has_magic(word):
            # Only what was typed is a pattern, not the name of the working folder.
            typed = expand_home(word)
            pattern = str(typed) if typed.is_absolute() else f"{glob.escape(str(Path.cwd()))}/{typed}"
            matches = sorted(_expand_pattern(pattern))
            found.update(dict.fromkeys(_list_glob_images(matches, walk, seen)))
        else:
            raise _build_path_error(path)
    walk.others = [*dict.fromkeys(walk.others)]
    for finding in build_walk_findings(walk):
        say("note", f"{finding.title}: {format_list(finding.paths)}")
    if not found:
        hint = "name files, folders or globs such as 'in/*.jpg'"
        raise DataError("no images found", where=format_list(paths), hint=hint)
    return tuple(found)


def _expand_pattern(pattern: str) -> set[str]:
    """Return the paths that match a pattern; ``**`` matches any folders, each real one once."""
    # Folders that match are searched anyway.
    before, stars, after = pattern.removesuffix("/**").partition("**/")
    if not stars or not before.endswith("/"):
        # Path.glob accepts no absolute pattern.
        return set(glob.glob(pattern.removesuffix("/**")))  # noqa: PTH207
    matches: set[str] = set()
    for top in glob.glob(before.rstrip("/") or "/"):  # noqa: PTH207
        for folder, _ in walk_folders(top, Walk()):
            matches |= _expand_pattern(f"{glob.escape(folder)}/{after}")
    return matches


def _walk_images(folder: Path, passed_over: Walk, seen: set[tuple[int, int]]) -> list[str]:
    """Return the images below a folder, whatever their names, and add what isn't one to ``passed_over``."""
    walk = walk_images(folder, seen=seen)
    for name in ("others", "loops", "repeated", "unreadable", "written"):
        getattr(passed_over, name).extend(getattr(walk, name))
    return sorted((*walk.images, *walk.not_utf8))


def require_no_overwrite(outputs: Iterable[Path], images: Iterable[str]) -> None:
    """Raise an error if an output would overwrite one of the images.

    Raises:
        DataError: One of ``outputs`` is the same file as one of ``images``, also through links.
    """
    spared = {os.path.realpath(image) for image in images}
    for output in outputs:
        if os.path.realpath(output) in spared:
            what = "is one of the images, which imagetune never overwrites"
            raise DataError(what, where=str(output), hint="name another path")


def build_unreadable_error() -> DataError:
    """Return the error for images of which none could be decoded; the reason of each was reported before."""
    return DataError("none of the images can be read", hint="the reason for each image is given above")


def _list_glob_images(matches: list[str], passed_over: Walk, seen: set[tuple[int, int]]) -> Iterable[str]:
    for match in matches:
        if is_folder(match):
            # `**` matches every folder as well as the files inside; a plain `*` matches folders to be searched.
            yield from _walk_images(Path(match), passed_over, seen)
        elif is_image_file(match):
            yield match
        else:
            passed_over.others.append(match)


def _build_path_error(path: Path) -> DataError:
    if is_link(path):
        target = str(path.readlink())
        return DataError(f"is a symbolic link to {target!r}, which does not exist", where=str(path))
    parent = path.parent
    if not is_folder(parent):
        return DataError(f"no such file or folder; {parent} does not exist either", where=str(path))
    names = list_names(parent)
    beside = f"beside it: {format_list(names)}" if names else f"{parent} is empty"
    return DataError("no such file or folder", where=str(path), hint=suggest_name(path.name, names) or beside)


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
