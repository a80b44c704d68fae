"""Folders as sources: class folders, split folders, folders with a metadata.csv or with JSON files beside images."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from imagetune.core.text import format_count, format_list
from imagetune.data.findings import Finding
from imagetune.data.sources.catalog import Catalog
from imagetune.data.sources.json_labels import has_sidecars, read_sidecars, sidecar_of
from imagetune.data.sources.records import Record
from imagetune.data.sources.split_names import split_of
from imagetune.data.sources.tables import read_metadata
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.recipe.data import DataConfig

_COMMON_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".webp", ".bmp", ".tif", ".tiff")
_RARE_SUFFIXES = (".avif", ".dib", ".jp2", ".pbm", ".pgm", ".pnm", ".ppm")
IMAGE_SUFFIXES = frozenset((*_COMMON_SUFFIXES, *_RARE_SUFFIXES))
METADATA = "metadata.csv"
# Files that systems leave behind and nobody wants to hear about.
_LITTER = frozenset(("thumbs.db", "desktop.ini", "__macosx", "@eadir"))


@dataclass
class Walk:
    """What lies below a folder.

    Attributes:
        images: Absolute paths, sorted within each folder.
        others: Files that are not images.
        loops: Links that lead back to a folder above.
        unreadable: Folders that may not be listed.
        unspeakable: Names that are not UTF-8, written with escapes.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    unspeakable: list[str] = field(default_factory=list)


def is_image(path: str) -> bool:
    """Return whether the suffix is that of an image."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def walk_images(folder: Path) -> Walk:
    """Search a folder through for images; hidden names are passed over and links are followed, but not in circles."""
    walk = Walk()
    _walk(str(folder), walk, frozenset())
    return walk


def read_folder(source: Path, config: DataConfig) -> Catalog:
    """Read a folder of class folders, of split folders, with a ``metadata.csv``, or with a JSON file an image.

    Raises:
        DataError: No class folders, an empty class folder, a corrupted ``metadata.csv`` or JSON file.
    """
    if (source / METADATA).is_file():
        return read_metadata(source, {source: None}, config)
    splits = _split_folders(source, config)
    if not splits:
        return _read_labelled(source, {source: None}, config)
    beside = [path.name for path in _folders_in(source) if path not in splits]
    if any((path / METADATA).is_file() for path in splits):
        catalog = read_metadata(source, splits, config)
    else:
        catalog = _read_labelled(source, splits, config)
    return Catalog(catalog.root, catalog.records, catalog.findings + _beside_splits(beside))


def _read_labelled(source: Path, tops: dict[Path, str | None], config: DataConfig) -> Catalog:
    if any(_labelled_by_json(top, config) for top in tops):
        return _read_json_folders(source, tops, config)
    return _read_class_folders(source, tops, config)


def _labelled_by_json(top: Path, config: DataConfig) -> bool:
    """Return whether the labels of a folder are in JSON files.

    Class folders can't say what multi_label and regression need, so JSON files in them are predicted as labels; for one
    class an image they are other tools' files.
    """
    if config.task not in ("multi_label", "regression") and _folders_in(top):
        return False
    return has_sidecars(walk_images(top).images)


def _read_json_folders(source: Path, tops: dict[Path, str | None], config: DataConfig) -> Catalog:
    records: list[Record] = []
    total = Walk()
    for top, split in tops.items():
        before = len(total.images)
        _walk(str(top), total, frozenset())
        records += read_sidecars(total.images[before:], config, split=split)
    used = {str(sidecar_of(image)) for image in total.images}
    total.others = [path for path in total.others if path not in used]
    return Catalog(source, tuple(records), tuple(_walk_findings(total)))


def _split_folders(source: Path, config: DataConfig) -> dict[Path, str | None]:
    """Return the split of each folder when the source is already split, and nothing when its folders are classes.

    A class may well be called "test" or "train"; it takes a training folder and another split beside it, or nothing
    but split folders, each with folders, a metadata.csv or JSON labels inside, to be sure.
    """
    folders = _folders_in(source)
    splits = {path: split_of(path.name) for path in folders if split_of(path.name)}
    kinds = set(splits.values())
    if "train" not in kinds or (len(kinds) == 1 and len(splits) < len(folders)):
        return {}
    training = [path for path, kind in splits.items() if kind == "train"]
    if all(_folders_in(path) or (path / METADATA).is_file() or _labelled_by_json(path, config) for path in training):
        return splits
    return {}


def _read_class_folders(source: Path, tops: dict[Path, str | None], config: DataConfig) -> Catalog:
    records: list[Record] = []
    total = Walk()
    empty: list[str] = []
    for top, split in tops.items():
        above = frozenset((_identity(str(source)), _identity(str(top))))
        classes = _folders_in(top)
        if not classes:
            raise _no_class_folders(top, split)
        _note_files(top, total)
        for folder in classes:
            label = unicodedata.normalize("NFC", folder.name)
            before = len(total.images)
            _walk_below(str(folder), total, above)
            records += [Record(path, label, split) for path in total.images[before:]]
            if len(total.images) == before and (config.classes is None or label in config.classes):
                empty.append(str(folder))
    if empty:
        what = f"{format_count(len(empty), 'class folder')} without an image: {format_list(empty)}"
        raise DataError(what, where=str(source), hint="remove it, fill it, or name the classes to use in data.classes")
    return Catalog(source, tuple(records), tuple(_walk_findings(total)))


def _no_class_folders(top: Path, split: str | None) -> DataError:
    walk = walk_images(top)
    where = str(top)
    if not walk.images:
        return DataError("holds no images and no class folders", where=where)
    what = f"holds {format_count(len(walk.images), 'image')} but no class folders, so their labels are not known"
    hint = "put each class into a folder of its own, use a table with path,label, or a NAME.json beside each image"
    if split in ("val", "test"):
        hint = f"put each class into a folder, or point data.source at the training folder: {split} is then split off"
    return DataError(what, where=where, hint=hint)


def _folders_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not _passed_over(path.name) and path.is_dir())
    except PermissionError as error:
        raise DataError("may not be read", where=str(folder), hint="check its permissions") from error


def _note_files(top: Path, walk: Walk) -> None:
    """Files beside the class folders belong to no class."""
    walk.others += sorted(str(path) for path in top.iterdir() if not _passed_over(path.name) and not path.is_dir())


def _passed_over(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER


def _identity(folder: str) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _leads_back(folder: str) -> bool:
    """Return whether a folder is a link to one above it: all images there would get the label of its place."""
    path = Path(folder)
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _walk_below(folder: str, walk: Walk, above: frozenset[tuple[int, int]]) -> None:
    if _identity(folder) in above or _leads_back(folder):
        walk.loops.append(folder)
    else:
        _walk(folder, walk, above)


def _walk(folder: str, walk: Walk, above: frozenset[tuple[int, int]]) -> None:
    inside: list[str] = []
    for entry in _entries(folder, walk):
        if entry.is_dir():
            inside.append(entry.path)
        elif is_image(entry.name):
            walk.images.append(entry.path)
        else:
            walk.others.append(entry.path)
    below = above | {_identity(folder)}
    for path in inside:
        _walk_below(path, walk, below)


def _entries(folder: str, walk: Walk) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except PermissionError:
        walk.unreadable.append(folder)
        return
    for entry in entries:
        if _passed_over(entry.name):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            walk.unspeakable.append(os.fsencode(entry.path).decode(errors="backslashreplace"))
            continue
        yield entry


def _beside_splits(names: list[str]) -> tuple[Finding, ...]:
    if not names:
        return ()
    title = f"{format_count(len(names), 'folder')} beside the split folders left out: {format_list(names)}"
    return (Finding("folder-left-out", "warning", title),)


def _walk_findings(walk: Walk) -> Iterator[Finding]:
    strays = tuple(path for path in walk.others if is_image(path))
    others = tuple(path for path in walk.others if not is_image(path))
    if strays:
        title = f"{format_count(len(strays), 'image')} outside the class folders left out"
        yield Finding("stray-image", "warning", title, "it has no label", strays, "move each into a class folder")
    if others:
        suffixes = Counter(Path(path).suffix.lower() or "without suffix" for path in others)
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
        verb = "is" if len(others) == 1 else "are"
        title = f"{format_count(len(others), 'file')} left out that {verb} no image ({kinds})"
        hint = "convert HEIC images to JPEG or PNG" if suffixes[".heic"] or suffixes[".heif"] else ""
        yield Finding("not-a-image", "note", title, "", others, hint)
    if walk.loops:
        verb = "leads" if len(walk.loops) == 1 else "lead"
        title = f"{format_count(len(walk.loops), 'link')} left out that {verb} back to a folder above"
        yield Finding("link-loop", "warning", title, "", tuple(walk.loops))
    if walk.unreadable:
        title = f"{format_count(len(walk.unreadable), 'folder')} may not be read and left out"
        yield Finding("unreadable-folder", "warning", title, "", tuple(walk.unreadable), "check the permissions")
    if walk.unspeakable:
        title = f"{format_count(len(walk.unspeakable), 'name')} left out that is not UTF-8 text"
        yield Finding("name-not-utf8", "warning", title, "", tuple(walk.unspeakable), "rename it")
