from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from imagetune.data.loading import pipeline
from imagetune.data.loading.decode import load_image
from imagetune.data.loading.pipeline import (
    Batch,
    _choose_workers,
    compute_epoch_order,
    compute_steps_per_epoch,
    load_evaluation_batches,
    load_training_batches,
    load_unlabelled_batches,
)
from imagetune.data.sources.records import Record
from imagetune.errors import BadImageError, DataError, ResourceError
from imagetune.recipe.sections.data import ImageSettings

IMAGE = ImageSettings(height=32, width=32)
NAMES = ("cat", "dog", "owl")
COMMON: dict[str, Any] = {"image": IMAGE, "batch_size": 8, "max_pixels": 10**8}
TRAINING: dict[str, Any] = {**COMMON, "augmentation": "medium", "seed": 3, "epochs": 2}


@pytest.fixture
def records(class_folders: Path) -> list[Record]:
    return [Record(str(path), path.parent.name) for path in sorted(class_folders.rglob("*.png"))][:30]


def gathered(batches: Any) -> list[Batch]:
    with batches as found:
        return list(found)


def same(one: Sequence[Batch], other: Sequence[Batch]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(a.images, b.images)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.indices, b.indices)
        for a, b in zip(one, other, strict=True)
    )


def test_each_epoch_has_every_image_once_in_another_order(records: list[Record]) -> None:
    batches = gathered(load_training_batches(records, NAMES, **TRAINING, workers=0))
    assert [len(batch.labels) for batch in batches] == [8, 8, 8, 6] * 2
    assert compute_steps_per_epoch(30, 8) == 4
    orders = [np.concatenate([batch.indices for batch in batches[start : start + 4]]) for start in (0, 4)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(30))
    assert not np.array_equal(orders[0], orders[1])


def test_labels_and_types_are_right(records: list[Record]) -> None:
    for batch in gathered(load_training_batches(records, NAMES, **TRAINING, workers=0)):
        assert (batch.images.dtype, batch.labels.dtype, batch.indices.dtype) == (np.uint8, np.int32, np.int64)
        assert batch.images.shape == (len(batch.labels), 32, 32, 3)
        assert [NAMES[label] for label in batch.labels] == [records[index].label for index in batch.indices]


def test_pixels_and_order_do_not_depend_on_the_workers(records: list[Record]) -> None:
    alone = gathered(load_training_batches(records, NAMES, **TRAINING, workers=0))
    assert same(alone, gathered(load_training_batches(records, NAMES, **TRAINING, workers=0)))
    assert same(alone, gathered(load_training_batches(records, NAMES, **TRAINING, workers=2)))
    assert not same(alone, gathered(load_training_batches(records, NAMES, **{**TRAINING, "seed": 4}, workers=0)))


@pytest.mark.parametrize("workers", [0, 1])
def test_any_step_can_be_the_first(records: list[Record], workers: int) -> None:
    whole = gathered(load_training_batches(records, NAMES, **TRAINING, workers=0))
    rest = load_training_batches(records, NAMES, **TRAINING, workers=workers, start_step=5)
    assert len(rest) == 3
    assert same(whole[5:], gathered(rest))


def test_chances_decide_how_often_an_image_comes(records: list[Record]) -> None:
    chances = np.full(len(records), 0.5 / (len(records) - 1))
    chances[4] = 0.5
    batches = gathered(load_training_batches(records, NAMES, **{**TRAINING, "epochs": 4}, workers=0, chances=chances))
    drawn = np.concatenate([batch.indices for batch in batches])
    assert len(drawn) == 4 * len(records)
    assert np.mean(drawn == 4) == pytest.approx(0.5, abs=0.05)
    again = gathered(load_training_batches(records, NAMES, **{**TRAINING, "epochs": 4}, workers=0, chances=chances))
    assert same(batches, again)


def test_an_image_that_is_drawn_twice_is_augmented_in_two_ways(records: list[Record]) -> None:
    chances = np.zeros(len(records))
    chances[0] = 1.0
    (batch, *_) = gathered(load_training_batches(records, NAMES, **TRAINING, workers=0, chances=chances))
    assert len(np.unique(batch.images.reshape(len(batch.images), -1), axis=0)) > 1


def test_the_order_of_an_epoch_can_be_asked_for(records: list[Record]) -> None:
    chances = np.full(len(records), 1 / len(records))
    for given in (None, chances):
        batches = gathered(load_training_batches(records, NAMES, **TRAINING, workers=0, chances=given))
        for epoch in range(2):
            order = np.concatenate([batch.indices for batch in batches[4 * epoch : 4 * epoch + 4]])
            assert np.array_equal(order, compute_epoch_order(len(records), TRAINING["seed"], epoch, given))


def test_loading_begins_before_the_first_batch_is_asked_for(records: list[Record]) -> None:
    with load_training_batches(records, NAMES, **{**TRAINING, "epochs": 100}, workers=1) as batches:
        deadline = time.monotonic() + 60
        while not multiprocessing.active_children() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert multiprocessing.active_children()
    assert multiprocessing.active_children() == []
    with load_training_batches(records, NAMES, **TRAINING, workers=0) as batches:
        time.sleep(1)
        Path(records[int(compute_epoch_order(len(records), TRAINING["seed"], 0)[0])].path).unlink()
        assert len(next(batches).labels) == 8


def test_starting_after_the_end_gives_nothing(records: list[Record]) -> None:
    assert gathered(load_training_batches(records, NAMES, **TRAINING, workers=0, start_step=8)) == []


def test_evaluation_keeps_the_order_and_the_pixels(records: list[Record]) -> None:
    strange = [*records, Record(records[0].path, "yak")]
    for workers in (0, 2):
        batches = gathered(load_evaluation_batches(strange, NAMES, **COMMON, workers=workers))
        assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(31))
        assert batches[-1].labels[-1] == -1
        assert np.array_equal(batches[1].images[2], load_image(records[10].path, IMAGE, max_pixels=10**8))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_vanishes_is_named_in_the_main_process(records: list[Record], workers: int) -> None:
    batches = load_training_batches(records, NAMES, **{**TRAINING, "epochs": 50}, workers=workers)
    with batches, pytest.raises(DataError, match="no such file") as caught:
        next(batches)
        Path(records[17].path).unlink()
        for _ in batches:
            pass
    assert isinstance(caught.value, BadImageError)
    assert caught.value.where == records[17].path
    assert caught.value.exit_code == 3
    assert multiprocessing.active_children() == []


def test_prediction_goes_on_without_bad_images(records: list[Record]) -> None:
    Path(records[3].path).write_bytes(b"junk")
    batches = gathered(load_unlabelled_batches([record.path for record in records], **COMMON))
    assert batches[0].indices.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert batches[0].images.shape[0] == 7
    assert batches[0].errors == ((3, "is not an image that can be read"),)
    assert batches[1].errors == ()


@pytest.mark.parametrize("seconds", [1e-3, 10.0])
def test_files_come_in_their_order_from_any_batch_on(
    records: list[Record], monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr(pipeline, "DECODE_SECONDS", seconds)  # so much that worker processes are started, or so little
    paths = [record.path for record in records]
    found = gathered(load_unlabelled_batches(paths, **COMMON, start_step=2))
    assert np.concatenate([batch.indices for batch in found]).tolist() == list(range(16, 30))
    assert same(found, gathered(load_unlabelled_batches(paths, **COMMON))[2:])
    assert np.array_equal(found[0].images[1], load_image(paths[17], IMAGE, max_pixels=10**8))


def test_leaving_the_block_stops_the_workers(records: list[Record]) -> None:
    with load_training_batches(records, NAMES, **{**TRAINING, "epochs": 100}, workers=2) as batches:
        next(batches)
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []
    assert list(batches) == []


# A small batch fits into the worker's pipe; of a large one a part is there when the worker dies, and Grain waits for
# the rest for ever.
@pytest.mark.parametrize("size", [32, 256])
def test_a_worker_that_is_killed_is_reported(records: list[Record], size: int) -> None:
    large = {"image": ImageSettings(height=size, width=size), "epochs": 1000}
    with (
        load_training_batches(records, NAMES, **{**TRAINING, **large}, workers=1) as batches,
        pytest.raises(ResourceError, match=r"a worker process that loads images died \(process \d+, exit code -9\)"),
    ):
        next(batches)
        time.sleep(1.0)  # until the buffers are full
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        for _ in batches:
            pass


def test_automatic_workers_are_none_for_little_work() -> None:
    assert _choose_workers("auto", work_seconds=1.0, cores=6) == 0
    assert _choose_workers("auto", work_seconds=2000.0, cores=6) == 6
    assert _choose_workers("auto", work_seconds=2000.0, cores=1) == 0
    assert _choose_workers(3, work_seconds=0.1, cores=6) == 3


SCRIPT = """
import signal, sys, time
from imagetune.data.sources.records import Record
from imagetune.data.loading.pipeline import load_training_batches
from imagetune.recipe.sections.data import ImageSettings

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs start with it ignored
    records = [Record(sys.argv[1], "cat")] * 32
    batches = load_training_batches(records, ("cat",), image=ImageSettings(height=32, width=32), augmentation="none",
                               batch_size=8, seed=0, epochs=10**6, workers=2, max_pixels=10**8)
    import multiprocessing
    next(batches)
    next(batches)  # of the other worker, which is up now as well
    try:
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)  # Ctrl-C comes from here on
        for _ in batches:
            time.sleep(0.01)
    except KeyboardInterrupt:
        for _ in range(5):
            next(batches)
        batches.close()
        print("went on", flush=True)
"""


def started(tmp_path: Path, image: str) -> tuple[subprocess.Popen[str], list[int]]:
    script = tmp_path / "loader.py"
    script.write_text(textwrap.dedent(SCRIPT))
    process = subprocess.Popen(
        [sys.executable, str(script), image], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    return process, [int(word) for word in process.stdout.readline().split()]


def test_ctrl_c_reaches_the_main_process_only(records: list[Record], tmp_path: Path) -> None:
    process, _ = started(tmp_path, records[0].path)
    os.killpg(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out == "went on\n"
    assert process.returncode == 0


def test_workers_end_when_the_main_process_is_killed(records: list[Record], tmp_path: Path) -> None:
    process, workers = started(tmp_path, records[0].path)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(is_running, workers))


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
