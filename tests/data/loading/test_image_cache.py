from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from imagetune.core.row_store import MemoryRows
from imagetune.data.loading.decode import load_image
from imagetune.data.loading.image_cache import ImageCache, ImageCaches, open_image_cache
from imagetune.data.loading.pipeline import Batch, load_evaluation_batches, load_training_batches
from imagetune.data.sources.records import Record
from imagetune.recipe.sections.data import DataConfig

SIZE = 32
IMAGE_BYTES = SIZE * SIZE * 3
NAMES = ("cat", "dog", "owl")


@pytest.fixture
def records(class_folders: Path) -> list[Record]:
    return [Record(str(path), path.parent.name) for path in sorted(class_folders.rglob("*.png"))][:30]


@pytest.fixture
def hashes(records: list[Record]) -> dict[str, str]:
    return {record.path: hashlib.sha256(Path(record.path).read_bytes()).hexdigest() for record in records}


def config(**values: Any) -> DataConfig:
    return DataConfig.model_validate({"source": "here", "image_size": SIZE, "cache": "disk", **values})


def trained_on(
    records: Sequence[Record], cache: ImageCache | None, *, workers: int = 0, epochs: int = 3
) -> list[Batch]:
    settings = config()
    with load_training_batches(
        records,
        NAMES,
        image=settings.image,
        augmentation="medium",
        batch_size=8,
        seed=3,
        epochs=epochs,
        workers=workers,
        max_pixels=10**8,
        cache=cache,
    ) as batches:
        return list(batches)


def evaluated_on(records: Sequence[Record], cache: ImageCache | None) -> np.ndarray:
    with load_evaluation_batches(
        records, NAMES, image=config().image, batch_size=8, workers=0, max_pixels=10**8, cache=cache
    ) as batches:
        return np.concatenate([batch.images for batch in batches])


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.images, b.images) and np.array_equal(a.indices, b.indices)
        for a, b in zip(one, other, strict=True)
    )


def rows_file(root: Path) -> Path:
    (file,) = root.glob("images/*/rows.bin")
    return file


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_are_the_same_with_and_without_a_cache(
    records: list[Record], hashes: dict[str, str], tmp_path: Path, workers: int
) -> None:
    without = trained_on(records, None)
    cache = open_image_cache(config(), hashes, root=tmp_path / "cache")
    assert same(without, trained_on(records, cache, workers=workers))
    assert cache.rows is not None
    assert cache.rows.there().all()
    again = open_image_cache(config(), hashes, root=tmp_path / "cache")
    # One process is enough to read what several have written.
    assert same(without, trained_on(records, again, workers=min(workers, 1)))
    assert np.array_equal(evaluated_on(records, None), evaluated_on(records, again))


def test_memory_gives_the_same_pixels(records: list[Record], hashes: dict[str, str]) -> None:
    cache = open_image_cache(config(cache="ram", workers=0), hashes)
    assert cache.kind == "ram"
    assert same(trained_on(records, None), trained_on(records, cache))
    assert cache.rows is not None
    assert cache.rows.there().all()


def test_memory_is_not_sent_to_worker_processes(records: list[Record], hashes: dict[str, str]) -> None:
    cache = open_image_cache(config(cache="ram", workers=0), hashes)
    assert same(trained_on(records, None), trained_on(records, cache, workers=1))
    assert cache.rows is not None
    assert not cache.rows.there().any()


def test_an_image_is_decoded_once(records: list[Record], hashes: dict[str, str], tmp_path: Path) -> None:
    cache = open_image_cache(config(), hashes, root=tmp_path / "cache")
    first = evaluated_on(records, cache)
    for record in records:
        Path(record.path).unlink()
    assert np.array_equal(first, evaluated_on(records, cache))
    assert np.array_equal(first, evaluated_on(records, open_image_cache(config(), hashes, root=tmp_path / "cache")))


def test_a_changed_image_is_decoded_anew(records: list[Record], hashes: dict[str, str], tmp_path: Path) -> None:
    evaluated_on(records, open_image_cache(config(), hashes, root=tmp_path / "cache"))
    changed = Path(records[3].path)
    changed.write_bytes(Path(records[20].path).read_bytes())
    now = {**hashes, str(changed): hashes[records[20].path]}
    found = evaluated_on(records, open_image_cache(config(), now, root=tmp_path / "cache"))
    assert np.array_equal(found[3], load_image(str(changed), config().image, max_pixels=10**8))


def test_an_image_without_a_hash_is_not_kept(records: list[Record], hashes: dict[str, str], tmp_path: Path) -> None:
    known = {**hashes, records[0].path: ""}
    del known[records[1].path]
    cache = open_image_cache(config(), known, root=tmp_path / "cache")
    assert cache.find_places([record.path for record in records]).tolist() == [-1, -1, *range(28)]
    assert np.array_equal(evaluated_on(records, None), evaluated_on(records, cache))


@pytest.mark.parametrize("other", [{"image_size": 40}, {"resize": "crop"}, {"background": (0, 0, 0)}])
def test_other_settings_share_no_images(hashes: dict[str, str], tmp_path: Path, other: dict[str, Any]) -> None:
    cache = open_image_cache(config(), hashes, root=tmp_path)
    assert cache.rows is not None
    cache.rows.put(0, np.zeros((SIZE, SIZE, 3), np.uint8))
    rows = open_image_cache(config(**other), hashes, root=tmp_path).rows
    assert rows is not None
    assert not rows.there().any()


def test_a_corrupted_image_is_decoded_anew(records: list[Record], hashes: dict[str, str], tmp_path: Path) -> None:
    right = evaluated_on(records, open_image_cache(config(), hashes, root=tmp_path))
    data = bytearray(rows_file(tmp_path).read_bytes())
    data[5 * IMAGE_BYTES + 7] ^= 255
    rows_file(tmp_path).write_bytes(data)
    cache = open_image_cache(config(), hashes, root=tmp_path)
    assert np.array_equal(right, evaluated_on(records, cache))
    assert (
        np.frombuffer(rows_file(tmp_path).read_bytes(), np.uint8).reshape(right.shape)[5].tolist() == right[5].tolist()
    )


WRITER = """
import json, sys, time
from pathlib import Path
from imagetune.data.loading.decode import load_image
from imagetune.data.loading.image_cache import open_image_cache
from imagetune.recipe.sections.data import DataConfig

hashes, root, seconds = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]), float(sys.argv[3])
config = DataConfig(source="here", image_size=32, cache="disk")
cache = open_image_cache(config, hashes, root=root)
images = [load_image(path, config.image, max_pixels=10**8) for path in hashes]
print("ready", flush=True)
end = time.monotonic() + seconds
while time.monotonic() < end:
    for place, image in enumerate(images):
        cache.rows.put(place, image)
"""


def writer(hashes: dict[str, str], folder: Path, root: Path, *, seconds: float) -> subprocess.Popen[str]:
    import json

    (folder / "hashes.json").write_text(json.dumps(hashes))
    arguments = [sys.executable, "-c", WRITER, str(folder / "hashes.json"), str(root), str(seconds)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_two_processes_fill_one_table(records: list[Record], hashes: dict[str, str], tmp_path: Path) -> None:
    other = writer(hashes, tmp_path, tmp_path / "cache", seconds=2.0)
    cache = open_image_cache(config(), hashes, root=tmp_path / "cache")
    assert same(trained_on(records, None, epochs=6), trained_on(records, cache, epochs=6))
    assert other.wait() == 0


def test_a_writer_that_is_killed_leaves_no_wrong_pixels(
    records: list[Record], hashes: dict[str, str], tmp_path: Path
) -> None:
    right = evaluated_on(records, None)
    for delay in (0.0, 0.003, 0.02):
        process = writer(hashes, tmp_path, tmp_path / "cache", seconds=60.0)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        cache = open_image_cache(config(), hashes, root=tmp_path / "cache")
        assert np.array_equal(right, evaluated_on(records, cache))


def test_off_and_unknown_hashes_keep_nothing(hashes: dict[str, str], tmp_path: Path) -> None:
    assert open_image_cache(config(cache="off"), hashes, root=tmp_path).rows is None
    unknown = open_image_cache(config(), {"a.png": ""}, root=tmp_path)
    assert (unknown.kind, unknown.reason) == ("off", "no image has a hash")
    assert list(tmp_path.glob("*.bin")) == []


def test_automatic_is_the_disk_where_it_has_room(hashes: dict[str, str], tmp_path: Path) -> None:
    cache = open_image_cache(config(cache="auto"), hashes, root=tmp_path)
    assert cache.kind == "disk"
    assert cache.reason.startswith("30 decoded images take ")


def test_automatic_is_memory_or_nothing_where_the_disk_has_no_room(hashes: dict[str, str], tmp_path: Path) -> None:
    tight = {"cache": "auto", "cache_gib": 10 * IMAGE_BYTES / 2**30}
    alone = open_image_cache(config(**tight, workers=0), hashes, root=tmp_path)
    assert (alone.kind, type(alone.rows)) == ("ram", MemoryRows)
    assert open_image_cache(config(**tight, workers=2), hashes, root=tmp_path).kind == "off"


def test_automatic_keeps_nothing_that_is_read_once(
    records: list[Record], hashes: dict[str, str], tmp_path: Path
) -> None:
    once = open_image_cache(config(cache="auto"), hashes, reads=1, root=tmp_path)
    assert (once.kind, once.reason) == ("off", "each image is read once")
    evaluated_on(records, open_image_cache(config(cache="auto"), hashes, root=tmp_path))
    assert open_image_cache(config(cache="auto"), hashes, reads=1, root=tmp_path).kind == "disk"


def test_memory_with_worker_processes_becomes_the_disk(hashes: dict[str, str], tmp_path: Path) -> None:
    cache = open_image_cache(config(cache="ram", workers=2), hashes, root=tmp_path)
    assert cache.kind == "disk"
    assert "worker processes don't share memory" in cache.reason


def test_the_disk_keeps_what_the_budget_allows(records: list[Record], hashes: dict[str, str], tmp_path: Path) -> None:
    budget = 10 * IMAGE_BYTES / 2**30
    cache = open_image_cache(config(cache_gib=budget), hashes, root=tmp_path)
    assert np.array_equal(evaluated_on(records, None), evaluated_on(records, cache))
    assert cache.rows is not None
    assert cache.rows.there().sum() == 10
    assert rows_file(tmp_path).stat().st_size == 10 * IMAGE_BYTES


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    records: list[Record], hashes: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    cache = open_image_cache(config(), hashes, root=tmp_path / "file")
    assert cache.kind == "off"
    assert "can't be written" in cache.reason
    assert np.array_equal(evaluated_on(records, None), evaluated_on(records, cache))


def test_a_run_opens_each_size_once(hashes: dict[str, str]) -> None:
    caches = ImageCaches(hashes)
    assert caches.open_cache(config()) is caches.open_cache(config(augmentation="strong"))
    assert caches.open_cache(config()) is not caches.open_cache(config(image_size=40))
