"""Surroundings that nobody meant: full disks, closed streams, encodings, limits, folders, variables and signals."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from tests.faults.attack.case import Case, Outcome, Room

DONE = frozenset({0})
REFUSED = frozenset({2, 3, 5, 9})
EITHER = DONE | REFUSED
LOST = frozenset({5})
# What ends a command that doesn't catch the signal is the signal itself.
STOPPED = {signal.SIGINT: frozenset({0, 130, -2}), signal.SIGTERM: frozenset({0, 143, -15})}
FIT = ("fit", "{shared}/recipe.yaml", "--run-dir", "{work}/run")
PREDICT = ("predict", "{shared}/run", "{shared}/new_images/red", "--json")
CHECK = ("data", "check", "{shared}/images", "--json")
SHOW = ("recipe", "show", "{shared}/recipe.yaml")
COMMANDS = {"fit": FIT, "predict": PREDICT, "check": CHECK, "show": SHOW, "help": ("--help",)}
# Bytes of a disk that the run folder lies on: from nothing at all to enough for everything but the last files.
DISKS = (8, 64, 128, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
VARIABLES: Mapping[str, tuple[Mapping[str, str], frozenset[int]]] = {
    "home-empty": ({"HOME": ""}, EITHER),
    "home-missing": ({"HOME": "/nonexistent/home"}, EITHER),
    "home-is-a-file": ({"HOME": "/etc/hostname"}, EITHER),
    "home-is-a-device": ({"HOME": "/dev/null"}, EITHER),
    "cache-is-a-file": ({"IMAGETUNE_CACHE": "/etc/hostname"}, DONE),
    "cache-is-a-device": ({"IMAGETUNE_CACHE": "/dev/null"}, DONE),
    "cache-is-in-proc": ({"IMAGETUNE_CACHE": "/proc/imagetune"}, DONE),
    "cache-is-relative": ({"IMAGETUNE_CACHE": "here"}, DONE),
    "cache-is-too-long": ({"IMAGETUNE_CACHE": "/tmp/" + "x" * 300}, DONE),
    "temporary-missing": ({"TMPDIR": "/nonexistent/tmp"}, EITHER),
    "temporary-is-a-file": ({"TMPDIR": "/etc/hostname"}, EITHER),
    "xdg-is-a-file": ({"XDG_CACHE_HOME": "/etc/hostname", "XDG_CONFIG_HOME": "/etc/hostname"}, EITHER),
    "matplotlib-is-a-file": ({"MPLCONFIGDIR": "/etc/hostname"}, DONE),
    "columns-zero": ({"COLUMNS": "0", "LINES": "0"}, DONE),
    "columns-negative": ({"COLUMNS": "-7"}, DONE),
    "columns-word": ({"COLUMNS": "wide"}, DONE),
    "columns-huge": ({"COLUMNS": "9" * 30}, DONE),
    "terminal-dumb": ({"TERM": "dumb", "FORCE_COLOR": "1"}, DONE),
    "zone-unknown": ({"TZ": "Nowhere/Never"}, DONE),
    "store-of-no-kind": ({"MLFLOW_TRACKING_URI": "ftp://example.invalid"}, DONE),
    "proxy": ({"http_proxy": "http://127.0.0.1:9", "https_proxy": "nonsense"}, DONE),
}
# Those that count when Python starts.
FRESH: Mapping[str, tuple[Mapping[str, str], frozenset[int]]] = {
    # Python takes names for ASCII then, so that those of other letters are no text and their folders have no images.
    "locale-c": ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, EITHER),
    "locale-unknown": ({"LC_ALL": "xx_XX.nothing"}, DONE),
    "encoding-ascii": ({"PYTHONIOENCODING": "ascii"}, DONE),
    "encoding-utf16": ({"PYTHONIOENCODING": "utf-16"}, DONE),
    "encoding-strict-cp437": ({"PYTHONIOENCODING": "cp437:strict"}, DONE),
    "unbuffered": ({"PYTHONUNBUFFERED": "1"}, DONE),
    "optimized": ({"PYTHONOPTIMIZE": "2"}, DONE),
    "backend-unknown": ({"KERAS_BACKEND": "nonsense"}, EITHER),
    "threads-word": ({"OMP_NUM_THREADS": "many"}, DONE),
}


def cases() -> Iterator[Case]:
    """Yield the cases of each kind of surroundings."""
    yield from _list_streams()
    yield from _list_disks()
    yield from _list_variables()
    yield from _list_limits()
    yield from _list_signals()


def _list_streams() -> Iterator[Case]:
    """Yield commands whose output is full or closed: what is lost has an exit code, and a run is finished."""
    full = {"says": "standard output: can't write"}
    ways: Mapping[str, Mapping[str, object]] = {
        "stdout-full": {"codes": LOST, "stdout": "/dev/full", **full},
        "stdout-closed": {"codes": LOST, "closed": (1,), **full},
        "stderr-closed": {"codes": DONE, "closed": (2,)},
        "both-closed": {"codes": LOST, "closed": (1, 2)},
        "stdin-closed": {"codes": DONE, "closed": (0,)},
        "all-closed": {"codes": LOST, "closed": (0, 1, 2)},
    }
    for name, words in COMMANDS.items():
        check = partial(_find_wrong_state, states={0: "finished", 5: "finished"}) if name == "fit" else _nothing
        for way, settings in ways.items():
            yield Case(f"environments/{way}-{name}", partial(_fill, words), check=check, **settings)  # type: ignore[arg-type]


def _list_disks() -> Iterator[Case]:
    """Yield trainings whose run folder, cache or home is on a disk that is full, becomes full or is read-only."""
    states = {0: "finished", 5: "failed"}
    for kilobytes in DISKS:
        yield Case(
            f"environments/disk-{kilobytes}k",
            partial(_fill, (*FIT[:3], "{work}/disk/run")),
            codes=DONE | LOST,
            check=partial(_find_wrong_state, states=states, run="disk/run"),
            during=_mounted("disk", f"size={kilobytes}k"),
        )
    for kilobytes in (4, 32, 128):
        yield _on_disk(f"cache-disk-{kilobytes}k", FIT, "home/cache", f"size={kilobytes}k", DONE)
        yield _on_disk(f"home-disk-{kilobytes}k", FIT, "home", f"size={kilobytes}k", DONE)
    yield _on_disk("cache-disk-read-only", FIT, "home/cache", "ro", DONE)
    yield _on_disk("home-disk-read-only", FIT, "home", "ro", DONE)
    yield _on_disk("work-disk-read-only", FIT, "work", "ro", frozenset({2}))
    yield _on_disk("work-disk-read-only-predict", PREDICT, "work", "ro", DONE)
    table = ("predict", "{shared}/run", "{shared}/new_images/red", "--csv", "{work}/disk/out.csv")
    for kilobytes in (0, 4):
        options = f"size={kilobytes or 4}k,nr_inodes={2 if kilobytes == 0 else 100}"
        yield _on_disk(f"table-disk-{kilobytes}k", table, "work/disk", options, DONE | LOST)


def _list_variables() -> Iterator[Case]:
    for name, (environment, codes) in VARIABLES.items():
        check = partial(_find_wrong_state, states={0: "finished"})
        yield Case(f"environments/{name}", partial(_fill, FIT), codes, check=check, environment=environment)
    for name, (environment, codes) in FRESH.items():
        yield Case(f"environments/{name}", partial(_check_odd_names, CHECK), codes, environment=environment, fresh=True)


def _list_limits() -> Iterator[Case]:
    """Yield commands under limits of the system; what can't be done is an error in words."""
    states = {0: "finished", 5: "failed"}
    for size in (0, 100, 1000, 10_000, 50_000, 200_000, 10**9):
        yield Case(
            f"environments/file-size-{size}",
            partial(_fill, FIT),
            codes=EITHER,
            check=partial(_find_wrong_state, states=states),
            limits={"RLIMIT_FSIZE": size},
        )
    for count in (8, 16, 32, 64, 256):
        yield Case(f"environments/open-files-{count}", partial(_fill, CHECK), EITHER, limits={"RLIMIT_NOFILE": count})
    for count in (24, 48, 96):
        yield Case(f"environments/open-files-{count}-fit", partial(_fill, FIT), EITHER, limits={"RLIMIT_NOFILE": count})
    # Below these the C library or TensorFlow ends the process itself (docs/security.md).
    for name, limits in (
        ("address-space-4g", {"RLIMIT_AS": 4 << 30}),
        ("address-space-6g", {"RLIMIT_AS": 6 << 30}),
        ("data-1024m", {"RLIMIT_DATA": 1 << 30}),
    ):
        check = partial(_find_wrong_state, states=states)
        yield Case(f"environments/{name}", partial(_fill, FIT), DONE | LOST, check=check, limits=limits)
    yield Case("environments/no-core-file", partial(_fill, CHECK), DONE, limits={"RLIMIT_CORE": 0})


def _list_signals() -> Iterator[Case]:
    """Yield trainings that are stopped at one moment or another."""
    states = {0: "finished", 130: ("killed", "finished", ""), 143: ("killed", "finished", ""), -2: "", -15: ""}
    for number, codes in STOPPED.items():
        for tenths in (12, 16, 20, 24, 28, 32, 36, 40, 45, 50):
            yield Case(
                f"environments/{number.name.lower()}-after-{tenths}",
                partial(_fill, FIT),
                codes,
                check=partial(_find_wrong_state, states=states),
                signals=((tenths / 10, number),),
            )
    for name, numbers in (("twice", (signal.SIGINT, signal.SIGINT)), ("both", (signal.SIGTERM, signal.SIGINT))):
        sent = tuple((2.0 + at, number) for at, number in enumerate(numbers))
        yield Case(f"environments/stopped-{name}", partial(_fill, FIT), frozenset({0, 130, 143}), signals=sent)


def _on_disk(name: str, words: Sequence[str], place: str, options: str, codes: frozenset[int]) -> Case:
    return Case(f"environments/{name}", partial(_fill, words), codes, during=_mounted(place, options, below="root"))


def _mounted(place: str, options: str, *, below: str = "work") -> Callable[[Room], AbstractContextManager[object]]:
    """Return what mounts a small disk beside a case; where this process may not mount, there is an ordinary folder."""

    @contextmanager
    def during(room: Room) -> Iterator[None]:
        folder: Path = getattr(room, below) / place
        folder.mkdir(parents=True, exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        mounted = not subprocess.run(mount, check=False, capture_output=True).returncode
        try:
            yield
        finally:
            if mounted:
                # What is left of the run is looked at afterwards.
                kept = {path: path.read_bytes() for path in folder.rglob("status.json")}
                subprocess.run(["umount", "--lazy", str(folder)], check=True)
                for path, content in kept.items():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)

    return during


def _fill(words: Sequence[str], room: Room) -> list[str]:
    return [word.format(shared=room.shared, work=room.work) for word in words]


def _check_odd_names(words: Sequence[str], room: Room) -> list[str]:
    """Return a command that prints names which most encodings lack."""
    folder = room.input / "images"
    for name, source in (("猫", "blue"), ("犬😀", "red")):
        (folder / name).mkdir(parents=True)
        for path in (room.shared / "images" / source).iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
    return [word.replace("{shared}/images", str(folder)) for word in words]


def _find_wrong_state(
    room: Room, outcome: Outcome, *, states: Mapping[int, str | tuple[str, ...]], run: str = "run"
) -> str:
    """Return what is wrong with the state of the run after its end; a run without a folder has none."""
    status = room.work / run / "status.json"
    try:
        found = json.loads(status.read_text(encoding="utf-8")).get("state", "") if status.is_file() else ""
    except ValueError:
        return "status.json is not JSON"
    wanted = states.get(outcome.code, "")
    allowed = (wanted,) if isinstance(wanted, str) else wanted
    # What is refused before there is room for a folder leaves none.
    if found in allowed or (not found and outcome.code != 0):
        return ""
    return f"the state of the run is {found!r} with exit code {outcome.code}"


def _nothing(room: Room, outcome: Outcome) -> str:
    del room, outcome
    return ""
