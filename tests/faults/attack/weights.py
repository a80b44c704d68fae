"""Untrusted weight files: HDF5 files, saved models, feature statistics and safetensors that state what isn't so."""

from __future__ import annotations

import json
import random
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from imagetune.core.files import compute_file_sha256
from tests.faults.attack.case import Case, Outcome, Room

REFUSED = frozenset({5, 9})
RANDOM_CHANGES = 24
TEXT = h5py.string_dtype()
LONG = 60_000


def cases() -> Iterator[Case]:
    """Yield hostile weights of a run, hostile saved models and files for ``model.weights``, and mutated ones."""
    for name, change in RUN_WEIGHTS.items():
        yield Case(f"weights/run-{name}", partial(_predict, change), codes=REFUSED, says="error", check=check_reached)
    for seed in range(RANDOM_CHANGES):
        # Bytes among the numbers may change without a trace.
        yield Case(
            f"weights/mutated-{seed:02d}",
            partial(_predict, partial(_mutate, seed)),
            codes=REFUSED | {0},
            check=check_reached,
        )
    for name, make in STATISTICS.items():
        yield Case(
            f"weights/statistics-{name}",
            partial(_predict_with_statistics, make),
            codes=REFUSED,
            says="error",
            check=check_reached,
        )
    for name, make in FILES.items():
        yield Case(
            f"weights/file-{name}", partial(_fit, make), codes=REFUSED | {2, 7}, says="error", check=check_reached
        )


def check_reached(room: Room, outcome: Outcome) -> str:
    """Complain where the input wasn't what ended the command."""
    del room
    return "the tests' own backbone was not to be had" if "unknown backbone 'tiny'" in outcome.output else ""


def _predict(change: Callable[[Path, Room], object], room: Room) -> list[str | Path]:
    """Predict with a run whose weights are changed, and whose manifest says that they are the right ones."""
    run = room.work / "run"
    shutil.copytree(room.shared / "run/model", run / "model")
    path = run / "model/model.weights.h5"
    change(path, room)
    _update_manifest(run, weights_sha256=compute_file_sha256(path) if path.is_file() else "")
    return ["predict", "run", _image(room)]


def _update_manifest(run: Path, **values: object) -> None:
    path = run / "model/manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def _image(room: Room) -> Path:
    return sorted((room.shared / "images").rglob("*.png"))[0]


def _in_file(fill: Callable[[h5py.File, Room], object], path: Path, room: Room) -> None:
    with h5py.File(path, "a") as file:
        fill(file, room)


def _first(file: h5py.File) -> tuple[h5py.Group, h5py.Dataset]:
    """Return the group of the first layer's arrays, and its first array."""
    found: list[h5py.Dataset] = []
    file.visititems(lambda _, item: found.append(item) if isinstance(item, h5py.Dataset) else None)
    return found[0].parent, found[0]


def _swap(make: Callable[[h5py.Group, Room], object]) -> Callable[[Path, Room], None]:
    """Return a change that puts something else in the place of the first array."""

    def fill(file: h5py.File, room: Room) -> None:
        group, _ = _first(file)
        del group["0"]
        make(group, room)

    return partial(_in_file, fill)


def _rewrite(content: Callable[[bytes], bytes]) -> Callable[[Path, Room], None]:
    return lambda path, _: path.write_bytes(content(path.read_bytes())) and None


def _share_text(path: Path, room: Room) -> None:
    """Give a file 300 lists of 900 names, which all are one text of 60 KB: 5 MB that took gigabytes to read."""
    del room
    with h5py.File(path, "a") as file:
        for number in range(300):
            file.attrs.create(f"layer_names{number}", ["y" if number else "x" * LONG, *["y"] * 899], dtype=TEXT)
    content = path.read_bytes()
    # A text of variable length is stored as its length, the address of its heap and its number there.
    at = content.index(struct.pack("<I", LONG))
    one, short = content[at : at + 16], re.escape(struct.pack("<I", 1))
    path.write_bytes(re.sub(short + b".{12}(?=" + short + b")", lambda _: one, content, flags=re.DOTALL))


def _write_long_name(file: h5py.File, room: Room) -> None:
    del room
    _first(file)[0].attrs["name"] = "x" * (64 << 20)


def _write_many_links(file: h5py.File, room: Room) -> None:
    del room
    group, array = _first(file)
    for number in range(100, 60_000):
        group[str(number)] = array


def _write_wide_tree(file: h5py.File, room: Room) -> None:
    del room
    for number in range(30_000):
        file.create_group(f"layers/more_{number}")


def _write_deep_tree(file: h5py.File, room: Room) -> None:
    del room
    file.create_group("layers/" + "/".join(["deeper"] * 5000))


def _write_loop(file: h5py.File, room: Room) -> None:
    del room
    file["layers/again"] = file["layers"]


def _write_inflating(group: h5py.Group, room: Room) -> None:
    del room
    array = group.create_dataset("0", data=np.zeros((64, 64), "f4"), chunks=(64, 64), compression="gzip")
    array.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 30), 1))


def _write_unknown_filter(group: h5py.Group, room: Room) -> None:
    del room
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((8,))
    plan.set_filter(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FLAG_OPTIONAL, (9,))
    h5py.h5d.create(group.id, b"0", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((8,)), plan)


def _write_virtual(group: h5py.Group, room: Room) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource(str(room.outside / "bait.txt"), "x", (3,))
    group.create_virtual_dataset("0", layout)


def _write_chunks(group: h5py.Group, room: Room) -> None:
    del room
    group.create_dataset("0", (4,), "f4", maxshape=(None,), chunks=(1 << 28,))


def _write_legacy(names: list[bytes], weights: list[bytes]) -> Callable[[Path, Room], None]:
    def fill(file: h5py.File, room: Room) -> None:
        del room
        file.attrs["layer_names"] = names
        for name in names[:5]:
            file.create_group(name.decode() or "empty").attrs["weight_names"] = weights

    return partial(_in_file, fill)


RUN_WEIGHTS: Mapping[str, Callable[[Path, Room], object]] = {
    "gone": lambda path, _: path.unlink(),
    "empty": _rewrite(lambda _: b""),
    "half": _rewrite(lambda content: content[: len(content) // 2]),
    "head": _rewrite(lambda content: content[:64]),
    "nulls": _rewrite(lambda content: bytes(len(content))),
    "text": _rewrite(lambda _: b"hello" * 1000),
    "pickle": _rewrite(lambda _: b"\x80\x04cos\nsystem\n(S'touch canary'\ntR."),
    "signature-alone": _rewrite(lambda content: content[:8] + bytes(2000)),
    "folder": lambda path, _: (path.unlink(), path.mkdir()),
    "device": lambda path, _: (path.unlink(), path.symlink_to("/dev/zero")),
    "external-link": _swap(
        lambda group, room: group.__setitem__("0", h5py.ExternalLink(str(room.outside / "bait.txt"), "/x"))
    ),
    "external-device": _swap(lambda group, _: group.__setitem__("0", h5py.ExternalLink("/dev/zero", "/x"))),
    "soft-link": _swap(lambda group, _: group.__setitem__("0", h5py.SoftLink("/layers"))),
    "external-numbers": _swap(
        lambda group, room: group.create_dataset("0", (3,), "f4", external=[(str(room.outside / "bait.txt"), 0, 12)])
    ),
    "virtual": _swap(_write_virtual),
    "huge-shape": _swap(lambda group, _: group.create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(64, 64))),
    "huge-unwritten": _swap(lambda group, _: group.create_dataset("0", (1 << 34,), "f4")),
    "huge-chunk": _swap(_write_chunks),
    "inflating": _swap(_write_inflating),
    "filter": _swap(_write_unknown_filter),
    "objects": _swap(lambda group, _: group.create_dataset("0", data=["x" * 1000] * 3, dtype=h5py.string_dtype())),
    "references": _swap(lambda group, _: group.create_dataset("0", (3,), h5py.ref_dtype)),
    "compound": _swap(lambda group, _: group.create_dataset("0", (3,), np.dtype([("a", "f4"), ("b", "S9")]))),
    "group-for-array": _swap(lambda group, _: group.create_group("0")),
    "null-space": _swap(lambda group, _: group.create_dataset("0", data=h5py.Empty("f4"))),
    "not-finite": _swap(lambda group, _: group.create_dataset("0", data=np.full((3, 3, 3, 8), np.nan, "f4"))),
    "other-shape": _swap(lambda group, _: group.create_dataset("0", data=np.ones(7, "f4"))),
    "no-array": _swap(lambda *_: None),
    "many-texts": _share_text,
    "long-name": partial(_in_file, _write_long_name),
    "many-links": partial(_in_file, _write_many_links),
    "wide-tree": partial(_in_file, _write_wide_tree),
    "deep-tree": partial(_in_file, _write_deep_tree),
    "loop": partial(_in_file, _write_loop),
    "names-nowhere": _write_legacy([b"conv"], [b"../../x"]),
    "names-up": _write_legacy([b"../outside"], [b"a"]),
    "names-many": _write_legacy([b"n%d" % number for number in range(1500)], [b"kernel"]),
    "names-empty": _write_legacy([b""], [b""]),
    "layer-names-number": partial(_in_file, lambda file, _: file.attrs.__setitem__("layer_names", 10**9)),
    "model-weights-link": partial(
        _in_file, lambda file, _: file.__setitem__("model_weights", h5py.ExternalLink("/dev/zero", "/x"))
    ),
}


def _mutate(seed: int, path: Path, room: Room) -> None:
    del room
    draw = random.Random(seed)
    content = bytearray(path.read_bytes())
    # Half of the changes among the first bytes, where the structure is.
    for _ in range(draw.choice([1, 4, 64])):
        content[draw.randrange(draw.choice([2048, len(content)]))] = draw.choice([0, 1, 127, 255, draw.randrange(256)])
    path.write_bytes(content)


GOOD = {"means": np.zeros((3, 12), "f4"), "directions": np.eye(12, dtype="f4"), "variances": np.ones(12, "f4")}


def _predict_with_statistics(make: Callable[[Path], object], room: Room) -> list[str | Path]:
    run = room.work / "run"
    shutil.copytree(room.shared / "run/model", run / "model")
    path = run / "model/feature_statistics.npz"
    make(path)
    rule = {"score": "mahalanobis", "threshold": 1.0, "share": 0.05, "statistics_sha256": compute_file_sha256(path)}
    _update_manifest(run, out_of_distribution=rule)
    return ["predict", "run", _image(room)]


def _save(**changed: object) -> Callable[[Path], object]:
    return lambda path: np.savez(path, **GOOD | {"rest": 1.0} | changed)


def _save_header(old: bytes, new: bytes) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        np.savez(path, **GOOD, rest=1.0)
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content.replace(old, new))

    return make


STATISTICS: Mapping[str, Callable[[Path], object]] = {
    "compressed": lambda path: np.savez_compressed(path, **GOOD | {"means": np.zeros((1 << 21, 128), "f4")}, rest=1.0),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "objects": _save(means=np.array([[None, print]])),
    "width": _save(means=np.zeros((3, 99), "f4")),
    "flat": _save(means=np.zeros(5, "f4")),
    "infinite": _save(rest=np.inf),
    "negative": _save(variances=-np.ones(12, "f4")),
    "texts": _save(directions=np.array([["x"]])),
    "huge-shape": _save_header(b"(12,)", b"(9**9,)"),
    "huge-number": _save_header(b"(12, 12)", b"(99999999999, 99999999999)"),
    "brackets": _save_header(b"(12,)", b"((((("),
    "missing": lambda path: np.savez(path, means=np.zeros((3, 12), "f4")),
}


def _fit(make: Callable[[Path, Room], str], room: Room) -> list[str | Path]:
    """Start a training from a file of weights; `make` writes it beside a path and returns its name."""
    name = make(room.input, room)
    recipe = (room.shared / "recipe.yaml").read_text(encoding="utf-8").replace("weights: random", f"weights: {name}")
    (room.work / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return ["fit", "recipe.yaml", "--dry-run"]


def _archive(
    weights: bytes, *, config: str = "{}", compression: int = zipfile.ZIP_STORED, name: str = "model.weights.h5"
) -> Callable[[Path, Room], str]:
    def make(folder: Path, room: Room) -> str:
        del room
        with zipfile.ZipFile(folder / "x.keras", "w", compression) as archive:
            archive.writestr("config.json", config)
            archive.writestr(name, weights)
        return str(folder / "x.keras")

    return make


def _plain(name: str, content: bytes) -> Callable[[Path, Room], str]:
    def make(folder: Path, room: Room) -> str:
        del room
        (folder / name).write_bytes(content)
        return str(folder / name)

    return make


def _lambda_model(folder: Path, room: Room) -> str:
    """Write a saved model whose configuration would run code, if anything read it."""
    code = f"__import__('os').system('touch {room.canary}')"
    config = {"module": "keras.layers", "class_name": "Lambda", "config": {"function": {"config": {"code": code}}}}
    return _archive(b"no weights", config=json.dumps(config))(folder, room)


def _safetensors(header: bytes, *, size: int | None = None, body: bytes = b"") -> Callable[[Path, Room], str]:
    size = len(header) if size is None else size
    return _plain("x.safetensors", struct.pack("<Q", size) + header + body)


def _pipe(folder: Path, room: Room) -> str:
    import os

    del room
    os.mkfifo(folder / "x.h5")
    return str(folder / "x.h5")


FILES: Mapping[str, Callable[[Path, Room], str]] = {
    "lambda": _lambda_model,
    "bomb": _archive(bytes(300 << 20), compression=zipfile.ZIP_DEFLATED),
    "no-weights": _archive(b"x", name="elsewhere.h5"),
    "not-hdf5": _archive(b"x" * 5000),
    "up": _archive(b"x", name="../../outside/model.weights.h5"),
    "pickle": _plain("x.h5", b"\x80\x04cos\nsystem\n(S'touch canary'\ntR."),
    "torch": _plain("x.pth", b"\x80\x04cos\nsystem\n(S'touch canary'\ntR."),
    "zip-cut": _plain("x.keras", b"PK\3\4" + bytes(100)),
    "pipe": _pipe,
    "device": lambda *_: "/dev/zero",
    "memory": lambda *_: "/proc/self/mem",
    "safetensors-other-backbone": _safetensors(b"{}"),
    "uri-up": lambda *_: "runs:/../../outside",
}
