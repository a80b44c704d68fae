"""Untrusted search folders, and checkpoints in them: corrupted files, and journals that name what isn't so."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.attack.case import Case, Room
from tests.faults.attack.run_folders import DAMAGES

REFUSED = frozenset({2, 3, 6, 8, 9})
FILES = ("search.json", "journal.jsonl", "recipe.yaml", "best/evaluation.json", "trials/trial-001/metrics.jsonl")
WAYS = ("empty", "half", "nulls", "not-utf8", "deep", "values", "digits", "sparse", "folder", "pipe", "device", "list")
SPACES = {
    "a": "x",
    "b": [1],
    "c": {"search": "choice", "values": 3},
    "d": {"search": "log_uniform", "low": 0, "high": 0},
}


def cases() -> Iterator[Case]:
    """Yield each damage of each file, each value of a journal's line, and searches that are to be gone on with."""
    for file in FILES:
        for way in WAYS:
            damage = partial(_damage_file, file, DAMAGES[way])
            yield Case(f"search_folders/{file}-{way}", partial(_report, damage), codes=REFUSED | {0})
    for name, change in LINES.items():
        yield Case(f"search_folders/line-{name}", partial(_report, partial(_change_line, change)), codes=REFUSED | {0})
    for name, space in SPACES.items():
        damage = partial(_set_space, space)
        yield Case(f"search_folders/space-{name}", partial(_report, damage), codes=REFUSED | {0})
    for name in ("link-report", "link-trials", "not-a-search"):
        yield Case(f"search_folders/{name}", partial(_report, LINKS[name]), codes=REFUSED, says="error")
    for way in ("half", "nulls", "deep", "sparse", "device"):
        damage = partial(_damage_file, "search.json", DAMAGES[way])
        yield Case(f"search_folders/resume-{way}", partial(_resume, damage), codes=REFUSED, says="error")


def _prepare(damage: Callable[[Path, Room], object], room: Room) -> Path:
    from searches import write_search

    folder = write_search(room.work / "search", trials=4)
    damage(folder, room)
    return folder


def _report(damage: Callable[[Path, Room], object], room: Room) -> list[str]:
    _prepare(damage, room)
    return ["report", "search"]


def _resume(damage: Callable[[Path, Room], object], room: Room) -> list[str]:
    folder = _prepare(damage, room)
    recipe = (
        (room.shared / "recipe.yaml")
        .read_text(encoding="utf-8")
        .replace("1e-2", "{search: uniform, low: 0.1, high: 0.2}")
    )
    (room.work / "recipe.yaml").write_text(recipe + "search: {algorithm: random, trials: 2}\n", encoding="utf-8")
    return ["search", "recipe.yaml", "--run-dir", folder.name, "--resume"]


def _damage_file(file: str, damage: Callable[[Path], object], folder: Path, room: Room) -> None:
    del room
    damage(folder / file)


def _change_line(change: Mapping[str, Any], folder: Path, room: Room) -> None:
    del room
    path = folder / "journal.jsonl"
    first, *rest = path.read_text(encoding="utf-8").splitlines()
    kind = change.get("event")
    at = next(number for number, line in enumerate([first, *rest]) if json.loads(line)["event"] == (kind or "proposed"))
    lines = [first, *rest]
    lines[at] = json.dumps(json.loads(lines[at]) | change)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _set_space(space: Any, folder: Path, room: Room) -> None:
    del room
    path = folder / "search.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["spaces"]["train.batch_size"] = space
    path.write_text(json.dumps(document), encoding="utf-8")


LINES: Mapping[str, Mapping[str, Any]] = {
    "name-up": {"trial_id": "../../../outside"},
    "name-root": {"trial_id": "/etc"},
    "name-long": {"trial_id": "x" * 5000},
    "name-number": {"trial_id": 1},
    "name-escape": {"trial_id": "\x1b[2J"},
    "values-text": {"values": "x"},
    "values-path": {"values": [[[], 1]]},
    "values-deep": {"values": [[["a", 10**30], {"a": [1, {"b": None}]}]]},
    "phase": {"phase": "os.system"},
    "epochs": {"epochs": 10**30},
    "epochs-text": {"epochs": "x"},
    "continues-up": {"continues": "../../.."},
    "unknown": {"later": 1},
    "status": {"event": "ended", "status": "x"},
    "objective-text": {"event": "ended", "objective": "x"},
    "objective-list": {"event": "ended", "objective": []},
    "seconds": {"event": "ended", "seconds": -1e308},
    "began": {"event": "ended", "began": 1e300},
    "best-epoch": {"event": "ended", "best_epoch": [1]},
    "error": {"event": "ended", "error": "\x1b[2J</script>|"},
}
LINKS: Mapping[str, Callable[[Path, Room], object]] = {
    "link-report": lambda folder, room: (folder / "report.html").symlink_to(room.outside / "bait.txt"),
    "link-trials": lambda folder, room: (
        (folder / "trials").rename(folder.parent / "trials"),
        (folder / "trials").symlink_to(room.outside),
    ),
    "not-a-search": lambda folder, _: (folder / "recipe.yaml").unlink(),
}
