"""The level of class folders: folders that are splits or parts of a data set, and hold the class folders themselves."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagetune.core.text import format_list
from imagetune.data.sources.image_files import is_image
from imagetune.data.sources.split_names import SPLIT_WORDS, parse_split_name
from imagetune.data.sources.walking import identify_folder, is_folder_entry
from imagetune.data.sources.written import is_written
from imagetune.errors import DataError

_CLASSES_HINT = "if they are the classes, name them in data.classes"


def refuse_wrong_level(top: Path, folders: Sequence[Path]) -> None:
    """Raise an error where would-be class folders are splits, parts of a data set, or hold their siblings again.

    Args:
        top: The folder that holds them.
        folders: The would-be class folders.

    Raises:
        DataError: It names the folder that is probably meant.
    """
    inside = {folder: _find_class_level(folder) for folder in folders}
    deeper = {folder: level for folder, level in inside.items() if level is not None}
    shared = _find_shared_names(deeper)
    meant = _choose_meant([folder for folder, level in deeper.items() if not shared or shared <= set(level[1])], deeper)
    if len(folders) == 1 and meant is not None and len(deeper[folders[0]][1]) > 1:
        what = f"has one folder, {folders[0].name}, which holds {format_list(sorted(deeper[folders[0]][1]))}"
        raise DataError(what, where=str(top), hint=f"set data.source to {meant}; or {_CLASSES_HINT}")
    if shared:
        names = [folder.name for folder, level in deeper.items() if shared <= set(level[1])]
        what = (
            f"{format_list(names)} hold the same folders ({format_list(sorted(shared))}), as splits do and not classes"
        )
        hint = f"set data.source to {meant}, or call them train, val and test; {_CLASSES_HINT}"
        raise DataError(what, where=str(top), hint=hint)
    if splits := _find_split_names(folders):
        what = f"{format_list(splits)} are called like splits, and hold no class folders in common"
        hint = "put each class into a folder of its own, or use a table with path,label"
        hint = f"set data.source to {meant}" if meant is not None else hint
        raise DataError(what, where=str(top), hint=f"{hint}; {_CLASSES_HINT}")
    for folder, (base, found) in deeper.items():
        if set(found) <= {other.name for other in folders if other != folder}:
            what = f"{folder.name} holds {format_list(sorted(found))} again, which lie beside it"
            hint = f"remove one of both, or set data.source to {base}; {_CLASSES_HINT}"
            raise DataError(what, where=str(top), hint=hint)


def _find_class_level(folder: Path) -> tuple[Path, tuple[str, ...]] | None:
    """Return the folder that holds several folders and no image, and their names; None where images come first."""
    seen: set[tuple[int, int] | None] = {None}
    while (identity := identify_folder(str(folder))) not in seen:
        seen.add(identity)
        folders: list[str] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    is_place = is_folder_entry(entry)
                    # The first image of a class folder ends this: folders of many files aren't read to their end.
                    if not is_place and is_image(entry.name):
                        return None
                    if is_place and not entry.name.startswith(".") and not is_written(entry.path):
                        folders.append(entry.name)
        except OSError:
            return None
        if len(folders) != 1:
            return (folder, tuple(folders)) if folders else None
        folder /= folders[0]
    return None


def _find_shared_names(deeper: Mapping[Path, tuple[Path, tuple[str, ...]]]) -> set[str]:
    """Return the largest set of two or more folder names that two folders have in common; empty without one."""
    levels = [set(names) for _, names in deeper.values()]
    shared = [first & second for place, first in enumerate(levels) for second in levels[place + 1 :]]
    largest = max(shared, key=len, default=set())
    return largest if len(largest) > 1 else set()


def _choose_meant(candidates: Sequence[Path], deeper: Mapping[Path, tuple[Path, tuple[str, ...]]]) -> Path | None:
    """Return the level of the folder that is called like a training split, or else of the first one."""
    ordered = sorted(candidates, key=lambda folder: ("train" not in _parse_words(folder.name).values(), folder.name))
    return deeper[ordered[0]][0] if ordered else None


def _find_split_names(folders: Sequence[Path]) -> list[str]:
    """Return the names that are the same but for a word for training, validation or test: ``seg_train, seg_test``."""
    alike: dict[str, dict[str, str]] = {}
    for folder in folders:
        for rest, split in _parse_words(folder.name).items():
            alike.setdefault(rest, {})[folder.name] = split
    return next((list(names) for names in alike.values() if len(set(names.values())) > 1), [])


def _parse_words(name: str) -> dict[str, str]:
    """Return the split that each word of a name means, by the rest of the name."""
    if whole := parse_split_name(name):
        return {"": whole}
    words = re.findall(r"[^\W\d_]+", name.casefold())
    return {
        " ".join((*words[:place], *words[place + 1 :])): SPLIT_WORDS[word]
        for place, word in enumerate(words)
        if word in SPLIT_WORDS
    }
