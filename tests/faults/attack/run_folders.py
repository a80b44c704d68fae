"""Untrusted run folders: every file of one cut, emptied, replaced by something else, or with other values in it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.attack.case import Case, Outcome, Room

REFUSED = frozenset({2, 3, 6, 9})
ENDED = REFUSED | {0}
DEEP = 100_000
REPORT, COMPARE, PREDICT, SOUP = (
    ("report", "run"),
    ("compare", "run", "{run}"),
    ("predict", "run", "{image}"),
    ("soup", "run", "{run}", "--run-dir", "soup"),
)
# The files of a run, and a command that reads each.
FILES: Mapping[str, tuple[str, ...]] = {
    "recipe.yaml": REPORT,
    "status.json": REPORT,
    "lock.json": COMPARE,
    "evaluation.json": REPORT,
    "audit.json": REPORT,
    "metrics.jsonl": REPORT,
    "stages.jsonl": REPORT,
    "splits.csv": COMPARE,
    "predictions/test.csv": COMPARE,
    "model/manifest.json": PREDICT,
    "model/model.weights.h5": PREDICT,
    "predict.py": REPORT,
}
# What a program might not expect at a place where it has always found one kind of value.
VALUES: Mapping[str, Any] = {
    "text": "x",
    "list": [],
    "object": {},
    "null": None,
    "huge": 10**30,
    "negative": -1,
    "escape": "\x1b[2J\x00</script>|\n# x",
}
FIELDS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "evaluation.json": (
        ("splits",),
        ("splits", "test"),
        ("splits", "test", "images"),
        ("splits", "test", "metrics"),
        ("splits", "test", "metrics", "accuracy"),
        ("splits", "test", "metrics", "f1", "value"),
        ("splits", "test", "per_class"),
        ("splits", "test", "confusion_matrix"),
        ("class_names",),
        ("task",),
        ("top_k",),
        ("gaps",),
        ("power",),
        ("verdict",),
        ("requirements",),
        ("baselines",),
        ("calibration",),
        ("selective_prediction",),
        ("conformal",),
        ("curves",),
        ("label_errors",),
        ("out_of_distribution",),
        ("neighbours",),
        ("explanations",),
        ("slices",),
    ),
    "lock.json": (("versions",), ("platform",), ("platform", "memory_bytes"), ("weights",), ("images",)),
    "status.json": (("state",), ("stage",), ("error",), ("pid",)),
    "audit.json": (("findings",), ("splits",)),
    "model/manifest.json": (
        ("config",),
        ("config", "backbone"),
        ("config", "head", "hidden"),
        ("class_names",),
        ("image",),
        ("image", "height"),
        ("max_pixels",),
        ("temperature",),
        ("thresholds",),
        ("conformal",),
        ("operating_point",),
        ("costs",),
        ("out_of_distribution",),
        ("weights_sha256",),
        ("value_std",),
        ("tta",),
    ),
}


def cases() -> Iterator[Case]:
    """Yield each way of damaging each file, then each unexpected value, then links and stated sizes."""
    for file, command in FILES.items():
        for name, damage in DAMAGES.items():
            yield _case(f"{file}-{name}", command, partial(_apply, damage, file), codes=ENDED)
    for file, fields in FIELDS.items():
        for number, field in enumerate(fields):
            # Two values a field, so that all kinds of values meet every file.
            for name in (list(VALUES)[number % len(VALUES)], list(VALUES)[(number + 3) % len(VALUES)]):
                damage = partial(_set_field, file, field, VALUES[name])
                yield _case(f"{file}-{'.'.join(field)}-{name}", FILES[file], damage, codes=ENDED)
    for name, (command, damage) in STATEMENTS.items():
        yield _case(name, command, damage, says="error")
    for name in ("report.html", "model_card.md", "status.json", "plots", "predictions"):
        yield _case(f"link-out-{name}", REPORT, partial(_link_out, name), says="link out of the run folder")


def _case(
    name: str,
    command: tuple[str, ...],
    damage: Callable[[Path, Room], None],
    *,
    codes: frozenset[int] = REFUSED,
    says: str = "",
) -> Case:
    return Case(
        f"run_folders/{name}", partial(_prepare, command, damage), codes=codes, says=says, check=_find_raw_escapes
    )


def _prepare(command: tuple[str, ...], damage: Callable[[Path, Room], None], room: Room) -> list[str]:
    run = room.work / "run"
    shutil.copytree(room.shared / "run", run, ignore=shutil.ignore_patterns("checkpoints", "model.keras"))
    damage(run, room)
    image = sorted((room.shared / "images").rglob("*.png"))[0]
    return [word.format(run=room.shared / "run", image=image) for word in command]


def _find_raw_escapes(room: Room, outcome: Outcome) -> str:
    return "an escape sequence of a file came out as it was" if "\x1b[2J" in outcome.output else ""


def _apply(damage: Callable[[Path], object], file: str, run: Path, room: Room) -> None:
    del room
    damage(run / file)


def _replace(make: Callable[[Path], object], path: Path) -> None:
    path.unlink()
    make(path)


def _edit(change: Callable[[bytes], bytes], path: Path) -> None:
    path.write_bytes(change(path.read_bytes()))


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": partial(_edit, lambda _: b""),
    "half": partial(_edit, lambda content: content[: len(content) // 2]),
    "last-byte": partial(_edit, lambda content: content[:-2]),
    "twice": partial(_edit, lambda content: content + content),
    "nulls": partial(_edit, lambda content: bytes(len(content))),
    "not-utf8": partial(_edit, lambda content: content[:40] + b"\xff\xfe\xed\xa0\x80" + content[40:]),
    "surrogate": partial(_edit, lambda content: content.replace(b'": "', b'": "\\ud800', 1)),
    "deep": partial(_edit, lambda _: b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}\n"),
    "deep-objects": partial(_edit, lambda _: b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"\n"),
    "values": partial(_edit, lambda _: b'{"a": [' + b"{}," * 3_000_000 + b"1]}\n"),
    "digits": partial(_edit, lambda content: content.replace(b"1", b"1" * 5000)),
    "nan": partial(_edit, lambda content: content.replace(b"0.", b"NaN", 3).replace(b": 1", b": 1e999")),
    "list": partial(_edit, lambda _: b"[1, 2]\n"),
    "one-line": partial(_edit, lambda _: b"path,label,split,group" + b"," * (8 << 20)),
    "sparse": lambda path: os.truncate(path, 40 << 30),
    "folder": partial(_replace, Path.mkdir),
    "pipe": partial(_replace, os.mkfifo),
    "device": partial(_replace, lambda path: path.symlink_to("/dev/zero")),
    "loop": partial(_replace, lambda path: path.symlink_to(path.name)),
}


def _set_field(file: str, field: tuple[str, ...], value: Any, run: Path, room: Room) -> None:
    del room
    path = run / file
    document = json.loads(path.read_text(encoding="utf-8"))
    place = document
    for part in field[:-1]:
        place = place.setdefault(part, {})
    place[field[-1]] = value
    path.write_text(json.dumps(document), encoding="utf-8")


def _link_out(name: str, run: Path, room: Room) -> None:
    path = run / name
    if path.is_dir():
        shutil.rmtree(path)
        path.symlink_to(room.outside)
    else:
        path.unlink(missing_ok=True)
        path.symlink_to(room.outside / "bait.txt")


def _state(**values: Any) -> Callable[[Path, Room], None]:
    def damage(run: Path, room: Room) -> None:
        for name, value in values.items():
            _set_field("model/manifest.json", tuple(name.split("__")), value, run, room)

    return damage


def _cell(column: int, value: str, run: Path, room: Room) -> None:
    del room
    path = run / "splits.csv"
    heading, first, *rest = path.read_text(encoding="utf-8").splitlines()
    cells = first.split(",")
    cells[column] = value
    path.write_text("\n".join([heading, ",".join(cells), *rest]) + "\n", encoding="utf-8")


# Sizes that would be allocated, and names that would become paths.
STATEMENTS: Mapping[str, tuple[tuple[str, ...], Callable[[Path, Room], None]]] = {
    "max-pixels": (PREDICT, _state(max_pixels=10**18)),
    "hidden-layers": (PREDICT, _state(config__head__hidden=[8] * 200_000)),
    "hidden-units": (PREDICT, _state(config__head__hidden=[10**9, 10**9])),
    "hidden-plausible": (PREDICT, _state(config__head__hidden=[16_384, 16_384])),
    "image-size": (PREDICT, _state(image__height=10**6, image__width=10**6)),
    "classes": (PREDICT, _state(class_names=[str(number) for number in range(200_000)])),
    "no-classes": (PREDICT, _state(class_names=[])),
    "backbone-path": (PREDICT, _state(config__backbone="../../outside/bait")),
    "backbone-module": (PREDICT, _state(config__backbone="os.system")),
    "flatten": (PREDICT, _state(config__head__pooling="flatten", image__height=4096, image__width=4096)),
    "unknown-key": (PREDICT, _state(lambda_="import os")),
    "split-word": (COMPARE, partial(_cell, 2, "elsewhere")),
    "split-cells": (COMPARE, partial(_cell, 2, "train,train,train")),
    "path-null": (COMPARE, partial(_cell, 0, "a\0b.png")),
    "path-long": (COMPARE, partial(_cell, 0, "x" * 200_000)),
}
