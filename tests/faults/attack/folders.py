"""Folders that double, nest, loop, and hold what is no file."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from PIL import Image

from tests.faults.attack.case import Case, Room
from tests.faults.attack.images import make_sparse

ENDS = frozenset({0, 3})


def cases() -> Iterator[Case]:
    """Yield each folder for each command that walks through one."""
    for name, fill in FILLS.items():
        for taker in ("check", "predict", "glob", "evaluate"):
            yield Case(f"folders/{taker}-{name}", partial(_take, taker, fill), codes=ENDS)


def _take(taker: str, fill: Callable[[Path], None], room: Room) -> list[str | Path]:
    for label in ("circle", "square", "stripes"):
        (room.input / label).mkdir()
        for place in range(3):
            Image.new("RGB", (32, 32), (40 * place, 90, 10)).save(room.input / label / f"{place}.png")
    fill(room.input / "circle")
    run = room.shared / "run"
    return {
        "check": ["data", "check", room.input],
        "predict": ["predict", run, room.input],
        "glob": ["predict", run, f"{room.input}/**/*.png"],
        "evaluate": ["evaluate", run, "--data", room.input],
    }[taker]


def _double(folder: Path) -> None:
    for level in range(24):
        (folder / str(level)).mkdir()
        for name in "ab":
            (folder / str(level) / name).symlink_to(folder / str(level + 1))
    (folder / "24").mkdir()


def _nest(depth: int, folder: Path) -> None:
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


def _loop(folder: Path) -> None:
    (folder / "self.png").symlink_to(folder / "self.png")
    (folder / "self").symlink_to(folder / "self")
    (folder / "up").symlink_to(folder.parent)
    (folder / "there").symlink_to(folder / "back")
    (folder / "back").symlink_to(folder / "there")


def _make_special(folder: Path) -> None:
    for name in ("pipe.jpg", "pipe", "pipe.json"):
        os.mkfifo(folder / name)
    for target in ("zero", "full", "tty", "random"):
        (folder / f"{target}.png").symlink_to(f"/dev/{target}")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(folder / "s.jpg"))
    listener.close()


def _make_sparse(folder: Path) -> None:
    for suffix in ("jpg", "png", "tif", "webp", "avif"):
        make_sparse(folder / f"large.{suffix}", 40 << 30)


def _make_odd_names(folder: Path) -> None:
    for name in (
        b"\xff\xfe.png",
        b"\x1b[2J.png",
        b"new\nline.png",
        b"=cmd.png",
        b"a" * 251 + b".png",
        b"\xe2\x80\xae.png",
    ):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"no image")
    (folder / os.fsdecode(b"\xff\xfe")).mkdir()


def _make_unreadable(folder: Path) -> None:
    (folder / "closed").mkdir(mode=0)
    (folder / "x.png").write_bytes(b"x")
    (folder / "x.png").chmod(0)


def _make_wide(folder: Path) -> None:
    for place in range(5000):
        (folder / str(place)).mkdir()


def _make_pretenders(folder: Path) -> None:
    for name in ("metadata.csv", "x.json", "status.json", "recipe.yaml"):
        (folder / name).mkdir()
    (folder.parent / "metadata.csv").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()


FILLS: dict[str, Callable[[Path], None]] = {
    "doubling": _double,
    "nested-700": partial(_nest, 700),
    "nested-800": partial(_nest, 800),
    "loops": _loop,
    "special": _make_special,
    "sparse": _make_sparse,
    "odd-names": _make_odd_names,
    "unreadable": _make_unreadable,
    "wide": _make_wide,
    "pretenders": _make_pretenders,
}
