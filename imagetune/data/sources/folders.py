"""Folders as data sources: class folders, split folders, folders with a metadata.csv or JSON label files."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.core.files import is_file
from imagetune.core.path_names import format_path
from imagetune.core.text import format_count, format_list
from imagetune.data.findings import Finding
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.image_files import is_image_file
from imagetune.data.sources.json_labels import build_sidecar_path, has_sidecars, read_sidecars
from imagetune.data.sources.levels import refuse_wrong_level
from imagetune.data.sources.records import Record
from imagetune.data.sources.split_names import parse_split_name
from imagetune.data.sources.tables import read_metadata
from imagetune.data.sources.walking import (
    Walk,
    add_class_folder,
    add_files_below,
    identify_folder,
    list_entries,
    walk_images,
)
from imagetune.data.sources.written import is_written
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.sections.data import DataConfig

METADATA = "metadata.csv"


def read_folder(source: Path, config: DataConfig) -> Catalog:
    """Return the catalog of a folder: class folders, split folders, a ``metadata.csv``, or a JSON file for each image.

    Raises:
        DataError: There are no class folders, a class folder is empty, or a ``metadata.csv`` or JSON file is invalid.
    """
    if is_file(source / METADATA):
        return read_metadata(source, {source: None}, config)
    splits = _split_folders(source, config)
    if not splits:
        return _read_labelled(source, {source: None}, config)
    beside = [path.name for path in _list_folders(source) if path not in splits and not _holds_only_written(path)]
    if any(is_file(path / METADATA) for path in splits):
        catalog = read_metadata(source, splits, config)
    else:
        catalog = _read_labelled(source, splits, config)
    return Catalog(catalog.root, catalog.records, catalog.findings + _find_folders_beside_splits(beside))


def _read_labelled(source: Path, tops: dict[Path, str | None], config: DataConfig) -> Catalog:
    if any(_has_json_labels(top, config) for top in tops):
        return _read_json_folders(source, tops, config)
    return _read_class_folders(source, tops, config)


def _has_json_labels(top: Path, config: DataConfig) -> bool:
    """Return whether the labels of a folder are in JSON files.

    Class folders can't express the labels of multi_label and regression, so JSON files in them are taken as labels; for
    single-label tasks they are other tools' files.
    """
    if config.task not in ("multi_label", "regression") and _list_folders(top):
        return False
    return has_sidecars(walk_images(top).images)


def _read_json_folders(source: Path, tops: dict[Path, str | None], config: DataConfig) -> Catalog:
    records: list[Record] = []
    total = Walk()
    for top, split in tops.items():
        before = len(total.images)
        add_files_below(str(top), total)
        records += read_sidecars(total.images[before:], config, split=split)
    # A used label file is not a stray file.
    used = {str(build_sidecar_path(image)) for image in total.images}
    total.others = [path for path in total.others if path not in used]
    return Catalog(source, tuple(records), tuple(build_walk_findings(total)))


def _split_folders(source: Path, config: DataConfig) -> dict[Path, str | None]:
    """Return the split of each folder of a source that is already split; empty when its folders are classes.

    A class may be called "test" or "train". So this requires a training folder, and either another split beside it or
    nothing but split folders; and the training folder must contain folders, a metadata.csv or JSON labels.
    """
    folders = _list_folders(source)
    splits = {path: parse_split_name(path.name) for path in folders if parse_split_name(path.name)}
    kinds = set(splits.values())
    if "train" not in kinds:
        return {}
    # A first fit may have left its runs beside the only split.
    if len(kinds) == 1 and not all(_holds_only_written(path) for path in folders if path not in splits):
        return {}
    training = [path for path, kind in splits.items() if kind == "train"]
    if all(_list_folders(path) or is_file(path / METADATA) or _has_json_labels(path, config) for path in training):
        return splits
    return {}


def _read_class_folders(source: Path, tops: dict[Path, str | None], config: DataConfig) -> Catalog:
    records: list[Record] = []
    total = Walk()
    empty: list[str] = []
    # Classes that the recipe names are taken as they are; training folders come first, as they are what is meant.
    for top in sorted(tops, key=lambda top: tops[top] != "train") if config.classes is None else ():
        refuse_wrong_level(top, [folder for folder in _list_folders(top) if not is_written(folder)])
    for top, split in tops.items():
        # Folders are identified by device and inode, because a link gives one folder many paths.
        above = frozenset(filter(None, (identify_folder(str(source)), identify_folder(str(top)))))
        classes = [folder for folder in _list_folders(top) if not is_written(folder)]
        if not classes:
            raise _build_no_classes_error(top, split)
        _add_files(top, total)
        for folder in classes:
            # macOS stores names decomposed, so the same class would have two spellings on two systems.
            label = unicodedata.normalize("NFC", folder.name)
            before, written = len(total.images), len(total.written)
            add_class_folder(str(folder), total, above)
            records += [Record(path, label, split) for path in total.images[before:]]
            # An empty folder of a class that the recipe leaves out does no harm, and one of runs is no class.
            wanted = (config.classes is None and len(total.written) == written) or label in (config.classes or ())
            if len(total.images) == before and wanted:
                empty.append(str(folder))
    if empty:
        what = f"{format_count(len(empty), 'class folder')} without images: {format_list(empty)}"
        raise DataError(what, where=str(source), hint="remove or fill them, or name the classes to use in data.classes")
    return Catalog(source, tuple(records), tuple(build_walk_findings(total)))


def _holds_only_written(folder: Path) -> bool:
    """Return whether imagetune wrote a folder, or all that has images in it."""
    walk = Walk()
    add_class_folder(str(folder), walk, frozenset())
    return bool(walk.written) and not walk.images


def _build_no_classes_error(top: Path, split: str | None) -> DataError:
    walk = walk_images(top)
    where = str(top)
    if not walk.images:
        return DataError("contains no images and no class folders", where=where)
    what = f"contains {format_count(len(walk.images), 'image')} but no class folders, so the labels are unknown"
    hint = "put each class into a folder of its own, or use a table with path,label or a NAME.json beside each image"
    if split in ("val", "test"):
        hint = f"put each class into a folder, or point data.source at the training folder: {split} is then split off"
    return DataError(what, where=where, hint=hint)


def _list_folders(folder: Path) -> list[Path]:
    return [Path(path) for path in _list(folder)[0]]


def _add_files(top: Path, walk: Walk) -> None:
    """Add the files beside the class folders, which belong to no class, to the walk."""
    walk.others += [entry.path for entry in _list(top)[1]]


def _list(folder: Path) -> tuple[list[str], list[os.DirEntry[str]]]:
    try:
        return list_entries(str(folder))
    except OSError as error:
        what = f"can't be listed: {error.strerror}"
        raise DataError(what, where=str(folder), hint="check the permissions of the folder") from error


def _find_folders_beside_splits(names: list[str]) -> tuple[Finding, ...]:
    if not names:
        return ()
    title = f"{format_count(len(names), 'folder')} beside the split folders left out: {format_list(names)}"
    return (Finding("folder-left-out", "warning", title),)


def build_walk_findings(walk: Walk) -> Iterator[Finding]:
    """Yield findings about the files of a walk that are not used."""
    strays = tuple(format_path(path) for path in walk.others if is_image_file(path))
    others = tuple(format_path(path) for path in walk.others if not is_image_file(path))
    if strays:
        title = f"{format_count(len(strays), 'image')} outside the class folders left out"
        yield Finding(
            "stray-image", "warning", title, "their labels are unknown", strays, "move each one into a class folder"
        )
    if others:
        suffixes = Counter(Path(path).suffix.lower() or "without suffix" for path in others)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        verb = "is not an image" if len(others) == 1 else "are not images"
        title = f"{format_count(len(others), 'file')} left out that {verb} ({kinds})"
        yield Finding("not-an-image", "note", title, "", others)
    if walk.written:
        title = f"{format_count(len(walk.written), 'folder')} left out that imagetune wrote"
        explanation = "runs and what is made of them are no data"
        yield Finding("own-output", "note", title, explanation, tuple(map(format_path, walk.written)))
    if walk.loops:
        verb = "leads" if len(walk.loops) == 1 else "lead"
        title = f"{format_count(len(walk.loops), 'symbolic link')} left out that {verb} back to a folder above"
        yield Finding("link-loop", "warning", title, "", tuple(map(format_path, walk.loops)))
    if walk.repeated:
        title = f"{format_count(len(walk.repeated), 'path')} to folders left out that others have led to before"
        yield Finding("link-loop", "warning", title, "", tuple(map(format_path, walk.repeated)))
    if walk.unreadable:
        title = f"{format_count(len(walk.unreadable), 'folder')} left out that can't be listed"
        yield Finding(
            "unreadable-folder", "warning", title, "", tuple(map(format_path, walk.unreadable)), "check the permissions"
        )
    if walk.not_utf8:
        title = f"{format_count(len(walk.not_utf8), 'image')} left out with a name that is not valid UTF-8"
        paths = tuple(map(format_path, walk.not_utf8))
        yield Finding("name-not-utf8", "warning", title, "reports can't hold it", paths, "rename the files")
