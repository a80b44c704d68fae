"""Hostile and unlucky recipes, overrides of them, and passwords in every place where one can be given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from tests.faults.attack.case import Case, Room

WRONG = frozenset({2, 3, 5, 7})
CANARY = "CANARY-pw-7"
DATA = "data: {source: x}\n"
# Where a number, a name or a text stands in a recipe.
NUMBERS = (
    *("seed", "data.image_size", "data.max_pixels", "data.workers", "data.cache_gib", "data.bit_depth", "train.epochs"),
    *(
        "train.batch_size",
        "train.effective_batch",
        "train.augmented_copies",
        "train.label_smoothing",
        "train.learning_rate",
    ),
    *("train.stages[0].epochs", "train.early_stopping.patience", "train.optimizer.weight_decay", "model.head.dropout"),
    *("model.head.hidden", "evaluate.top_k", "evaluate.bootstrap_samples", "evaluate.folds", "search.trials"),
    *(
        "search.parallel",
        "search.folds",
        "search.finalists",
        "search.repeats",
        "search.ray.cpus",
        "search.budget.hours",
    ),
)
ODD_NUMBERS = {
    "huge": "1000000000000000",
    "digits": "1" * 5000,
    "hex": "0x" + "f" * 5000,
    "infinite": ".inf",
    "nan": ".nan",
    "negative": "-1000000000",
}
TEXTS = ("data.source", "model.weights", "train.teacher", "model.backbone", "name", "tracking.uri", "data.augmentation")
ODD_TEXTS = {
    "null": '"a\\0b"',
    "surrogate": '"\\ud800"',
    "long": "ä" * 300,
    "long-path": "a/" * 3000,
    "escape": '"\\e[2J"',
    "pipe": "|",
}
DOCUMENTS = {
    "empty": "",
    "list": "- a",
    "binary": "\x00\x01\x02",
    "escape": "a: \x1b[2J",
    "two": "a: 1\n---\nb: 2\n",
    "python": "data: !!python/object/apply:os.system ['touch CANARY']",
    "python-new": "data: !!python/object/new:subprocess.Popen [[touch, CANARY]]",
    "aliases": "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)),
    "alias-depth": f"a0: &a0 {'[' * 30}x{']' * 30}\n"
    + "".join(f"a{i}: &a{i} {'[' * 30}*a{i - 1}{']' * 30}\n" for i in range(1, 30)),
    "self": "a: &a [*a]",
    "flow": "a: " + "[" * 500_000,
    "block": "".join(f"{' ' * depth}k:\n" for depth in range(1000)),
    "keys": DATA + "".join(f"k{i}: 1\n" for i in range(9000)),
    "long-key": f'{DATA}? "{"b" * 900_000}"\n: 1\n',
    "choice": f"{DATA}train: {{batch_size: {{search: choice, values: [{', '.join(map(str, range(1, 15000)))}]}}}}\n",
    "spaces": f"{DATA}train: {{class_weights: {{"
    + ", ".join(f"c{i}: {{search: uniform, low: 1.0, high: 2.0}}" for i in range(2000))
    + "}}\n",
    "transforms": f"data: {{source: x, augmentation: [{', '.join(['{Blur: {}}'] * 5000)}]}}\n",
    "resize": "data: {source: x, augmentation: [{Resize: {height: 1000000, width: 1000000}}]}\n",
    "glass": "data: {source: x, augmentation: [{GlassBlur: {iterations: 1000000}}]}\n",
    "lambda": "data: {source: x, augmentation: [{Lambda: {image: os.system}}]}\n",
    "comments": "#\n" * 490_000,
    "megabytes": DATA + "#" * 3_000_000,
}
ADDRESSES = {
    "plain": f"http://ann:{CANARY}@127.0.0.1:9",
    "no-slashes": f"http:ann:{CANARY}@127.0.0.1:9",
    "one-slash": f"http:/ann:{CANARY}@127.0.0.1:9",
    "no-scheme": f"ann:{CANARY}@127.0.0.1:9",
    "wrong-scheme": f"ftp://ann:{CANARY}@127.0.0.1",
    "token": f"http://127.0.0.1:9/?access_token={CANARY}",
    "user-only": f"http://{CANARY}@127.0.0.1:9",
    "bad-port": f"http://ann:{CANARY}@127.0.0.1:port",
}
PLACES = (
    "uri: ADDRESS",
    "uri: [ADDRESS]",
    "url: ADDRESS",
    "tags: ADDRESS",
    "uri: ADDRESS, required: true",
    "tracker: ADDRESS",
)


def cases() -> Iterator[Case]:
    """Yield recipes of all kinds; each is validated, and a password is also met by a fit."""
    for name, text in DOCUMENTS.items():
        yield Case(f"recipes/document-{name}", partial(_validate, text), codes=frozenset({2}), says="error")
    for key in NUMBERS:
        for name, value in ODD_NUMBERS.items():
            yield Case(f"recipes/number-{key}-{name}", partial(_override, f"{key}={value}"), codes=frozenset({0, 2}))
    for key in TEXTS:
        for name, value in ODD_TEXTS.items():
            yield Case(f"recipes/text-{key}-{name}", partial(_override, f"{key}={value}"), codes=frozenset({0, 2}))
    for name in ("pipe", "zero", "sparse", "socket"):
        yield Case(f"recipes/file-{name}", partial(_odd_file, name), codes=WRONG, says="error")
    yield from _secrets()


def _secrets() -> Iterator[Case]:
    for name, address in ADDRESSES.items():
        for number, place in enumerate(PLACES):
            recipe = f"{DATA}tracking: {{{place.replace('ADDRESS', repr(address))}}}\n"
            for command in ("validate", "show"):
                yield Case(
                    f"secrets/{command}-{name}-{number}",
                    partial(_validate, recipe, command),
                    codes=frozenset({0, 2}),
                    secret=CANARY,
                )
        fit = partial(_fit, f"tracking={{enabled: true, uri: '{address}'}}")
        yield Case(f"secrets/fit-{name}", fit, codes=frozenset({0, 2}), secret=CANARY)
    for name, variables in {
        "uri": {"MLFLOW_TRACKING_URI": ADDRESSES["plain"]},
        "no-slashes": {"MLFLOW_TRACKING_URI": ADDRESSES["no-slashes"]},
        "password": {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": CANARY},
        "token": {"MLFLOW_TRACKING_TOKEN": CANARY},
    }.items():
        uri = "" if "MLFLOW_TRACKING_URI" in variables else ", uri: 'http://127.0.0.1:9'"
        fit = partial(_fit, f"tracking={{enabled: true{uri}}}")
        yield Case(f"secrets/fit-env-{name}", fit, codes=frozenset({0}), secret=CANARY, environment=variables)


def _validate(text: str, command: str | Room, room: Room | None = None) -> list[str | Path]:
    if room is None:
        assert isinstance(command, Room)
        command, room = "validate", command
    path = room.input / "r.yaml"
    path.write_text(text.replace("CANARY]", f"{room.canary}]"), encoding="utf-8")
    return ["recipe", str(command), path]


def _override(override: str, room: Room) -> list[str | Path]:
    path = room.input / "r.yaml"
    path.write_text(DATA, encoding="utf-8")
    return ["recipe", "validate", path, "-o", override]


def _fit(override: str, room: Room) -> list[str | Path]:
    return ["fit", room.shared / "recipe.yaml", "--run-dir", "run", "-o", override]


def _odd_file(kind: str, room: Room) -> list[str | Path]:
    path = room.input / "r.yaml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 40 << 30)
    else:
        import socket

        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    return ["recipe", "validate", path]
