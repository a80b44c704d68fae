"""Untrusted folders: nested without end, linked in circles, linked so that paths double, unreadable."""

from __future__ import annotations

import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagetune.data.sources import walking
from imagetune.data.sources.image_files import is_image_file
from imagetune.data.sources.missing import describe_missing
from imagetune.data.sources.read import find_images, read_catalog
from imagetune.data.sources.walking import walk_images
from imagetune.errors import DataError
from imagetune.recipe.sections.data import DataConfig

ConfigFor = Callable[..., DataConfig]
MakeImage = Callable[..., Path]


def double(folder: Path, levels: int) -> None:
    """Make folders of which each has two links to the next, so that the last has two to the power of levels paths."""
    for level in range(levels):
        (folder / str(level)).mkdir(parents=True)
        for name in "ab":
            (folder / str(level) / name).symlink_to(folder / str(level + 1))
    (folder / str(levels)).mkdir()
    (folder / str(levels) / "x.png").touch()


def nest(folder: Path, depth: int, *, name: str = "d") -> Path:
    """Make folders inside each other, more than a path can name at once where need be."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    return folder


@pytest.fixture
def few_calls() -> Iterator[None]:
    """Allow 200 nested calls more than there are, so that not so many folders have to be made."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 200)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*.png", "/0/**/x.*"])
def test_paths_that_double_lead_to_each_folder_once(tmp_path: Path, pattern: str) -> None:
    double(tmp_path, 24)
    started = time.process_time()
    assert len(find_images([f"{tmp_path}{pattern}"])) == 1
    assert time.process_time() - started < 1.0


def test_folders_that_were_seen_before_are_named(tmp_path: Path) -> None:
    double(tmp_path, 3)
    said: list[str] = []
    find_images([str(tmp_path)], say=lambda _, words: said.append(words))
    assert any("6 paths to folders left out that others have led to before" in words for words in said)


@pytest.mark.usefixtures("few_calls")
def test_folders_may_be_nested_deeper_than_python_calls_functions(tmp_path: Path, config_for: ConfigFor) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    nest(tmp_path / "cat", 300)
    nest(tmp_path / "dog", 3)
    assert len(walk_images(tmp_path / "cat").images) == 1
    assert len(find_images([f"{tmp_path}/cat/**/*.png"])) == 1
    assert len(read_catalog(config_for(tmp_path)).records) == 2
    assert describe_missing([str(tmp_path / "x.png")], tmp_path)[0].startswith("there is cat/d/d")


def test_what_no_path_can_name_is_said_and_no_error(tmp_path: Path) -> None:
    walk = walk_images(nest(tmp_path, 20, name="d" * 250))
    assert len(walk.unreadable) == 1


def test_too_many_folders_end_with_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_FOLDERS", 10)
    for place in range(11):
        (tmp_path / str(place)).mkdir()
    with pytest.raises(DataError, match="holds more than 10 folders"):
        walk_images(tmp_path)


def test_a_link_to_itself_is_an_image_that_the_audit_names(tmp_path: Path, config_for: ConfigFor) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.png").symlink_to(tmp_path / label / "x.png")
        (tmp_path / label / "folder").symlink_to(tmp_path / label / "folder")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    catalog = read_catalog(config_for(tmp_path))
    assert [Path(record.path).name for record in catalog.records] == ["x.png", "x.png"]


def test_a_pipe_without_suffix_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_image_file(str(tmp_path / "pipe"))


def test_a_pipe_is_no_table(tmp_path: Path, config_for: ConfigFor) -> None:
    os.mkfifo(tmp_path / "x.csv")
    with pytest.raises(DataError, match="is a pipe or device"):
        read_catalog(config_for(tmp_path / "x.csv"))


@pytest.mark.parametrize("word", ["x" * 5000, "~nosuchuser/x", "/".join(["x"] * 5000)])
def test_a_path_that_cannot_be_is_no_such_file(word: str) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        find_images([word])
