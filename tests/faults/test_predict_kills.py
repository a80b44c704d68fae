"""Predictions into a table that are killed at any moment and gone on with: no gap, no repeat, the same bytes."""

from __future__ import annotations

import multiprocessing
import random
import time
from pathlib import Path

import pytest
from once import made_once
from tiny_backbones import TINY, tiny_backbones

from imagetune.core.files import read_json_or_empty

ROWS = 640
# So long that most kills come while rows are written.
BATCH_SECONDS = 0.05


def make_run(folder: Path, images: Path) -> None:
    import imagetune

    recipe = {
        "data": {"source": str(images), "image_size": 32, "augmentation": "none"},
        "model": {"backbone": TINY, "weights": "random"},
        "train": {"stages": "linear_probe", "epochs": 1},
        "tracking": {"enabled": False},
    }
    with tiny_backbones():
        imagetune.fit(recipe, run_dir=folder / "run")
    files = sorted(images.rglob("*.png"))
    cells = [str(files[row % len(files)]) if row % 7 else "none.png" for row in range(ROWS)]
    (folder / "rows.csv").write_text("path\n" + "".join(f"{cell}\n" for cell in cells))


@pytest.fixture(scope="module")
def place(tmp_path_factory, images):
    """A folder with a run and a table of paths, a seventh of which lead nowhere."""
    return made_once(tmp_path_factory, "kills", lambda folder: make_run(folder, images))


@pytest.fixture(scope="module")
def forked():
    """Processes that are forked from one with Keras imported, as a start takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["imagetune.commands.predict_table"])
    return context


def predict(place: Path, out: Path, seconds: float) -> None:
    from imagetune.commands.predict_table import TableRequest, predict_to_table
    from imagetune.core import growing_file

    growing_file._COMMIT_SECONDS = 0.1
    table = TableRequest(out, out.suffix[1:], resume=True)
    with tiny_backbones():
        predict_to_table(str(place / "run"), [str(place / "rows.csv")], table, progress=lambda *_: time.sleep(seconds))


def kill(forked, place: Path, out: Path, seconds: float) -> int:
    """Kill a process that predicts into a table, so long after it has kept rows; return how many had been kept."""
    state = out.with_name(f"{out.name}.partial") / "state.json"
    before = read_json_or_empty(state).get("rows", 0)
    process = forked.Process(target=predict, args=(place, out, BATCH_SECONDS))
    process.start()
    while process.is_alive() and read_json_or_empty(state).get("rows", 0) == before:
        time.sleep(0.01)
    process.join(seconds)
    process.kill()
    process.join()
    return read_json_or_empty(state).get("rows", 0)


@pytest.mark.parametrize(
    ("kind", "kills"),
    [("csv", 3), *(pytest.param(kind, 10, marks=pytest.mark.slow) for kind in ("csv", "jsonl", "parquet"))],
)
def test_a_table_is_the_same_after_any_number_of_kills(forked, place, tmp_path, kind, kills):
    whole, out = tmp_path / f"whole.{kind}", tmp_path / f"out.{kind}"
    predict(place, whole, 0.0)
    generator = random.Random(kills)
    kept = []
    for _ in range(kills):
        # A third of the kills comes later than the end, as a rule: while the file gets its name, and after that.
        kept.append(kill(forked, place, out, generator.uniform(0.0, 1.5 * ROWS / 32 * BATCH_SECONDS)))
        if out.exists():
            assert out.read_bytes() == whole.read_bytes()
            out.unlink()
    assert max(kept) > 0
    if not out.exists():
        predict(place, out, 0.0)
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([out.name, whole.name])
