"""Machines that lack something: a run ends well all the same, or says what is missing and can be gone on with."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tracking_helpers import wait_until

from imagetune.core.files import read_json_lines
from tests.faults.attack.keeper import PROJECT
from tests.faults.commands import OFFLINE, QUICK_TEST
from tests.faults.test_schedulers import REAL

FIT = ("fit", "colours.yaml", "--run-dir", "disk/run", *QUICK_TEST, *OFFLINE)


def mount(folder: Path, options: str) -> None:
    """Mount a disk in memory; where this process may not, the test is skipped."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("this process may not mount a disk")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    mount(folder, options)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def read_state(run: Path) -> str:
    return json.loads((run / "status.json").read_text())["state"]


def test_a_run_needs_neither_home_nor_temporary_folder_nor_more_than_64_files(commands, workplace, images):
    """Read-only images, a read-only home, no $TMPDIR and 64 descriptors, all at once."""
    with mounted(workplace / "mine", "size=16m") as data, mounted(workplace / "home", "ro"):
        shutil.copytree(images, data / "colours")
        mount(data, "remount,ro")
        ended = commands.run(
            *FIT,
            *("-o", f"data.source={data / 'colours'}"),
            environment={"HOME": str(workplace / "home"), "TMPDIR": str(workplace / "gone"), "IMAGETUNE_CACHE": ""},
            limits={"RLIMIT_NOFILE": 64},
        )
    assert ended.code == 0, ended.err[-2000:]
    assert read_state(workplace / "disk/run") == "finished"


def test_row_34_a_disk_without_inodes_ends_with_5_and_the_run_goes_on_when_it_has_some(commands, workplace):
    """The table of inodes is full in mid-training; the bytes would do for ten times as much."""
    long = ("-o", "train.stages.0.epochs=40", "-o", "train.commit_minutes=1e-9")
    with mounted(workplace / "disk", "size=64m,nr_inodes=200") as disk:
        began = commands.begin(*FIT, *long)
        began.await_file(disk / "run/metrics.jsonl", 2)
        with pytest.raises(OSError, match="No space left"):
            for number in range(200):
                (disk / f"filling{number}").touch()
        ended = began.wait()
        assert ended.code == 5, ended.err[-2000:]
        assert "No space left" in ended.err
        assert read_state(disk / "run") == "failed"
        assert list((disk / "run").rglob(".tmp-*")) == []
        for path in disk.glob("filling*"):
            path.unlink()
        resumed = commands.run(*FIT, *long, "--resume")
        assert resumed.code == 0, resumed.err[-2000:]
        assert "resumed" in resumed.err
        assert len(read_json_lines(disk / "run/metrics.jsonl")) == 41


def test_a_clock_that_jumps_changes_neither_the_result_nor_a_duration(
    recipe, workplace, imagetune, monkeypatch, fitted
):
    """Each look at the clock finds it a day later or earlier than the one before."""
    really, looks = time.time, []

    def jump() -> float:
        looks.append(None)
        return really() + 86_400 * (-1) ** len(looks)

    monkeypatch.setattr(time, "time", jump)
    outcome = imagetune("fit", recipe, "--run-dir", "run", *QUICK_TEST)
    monkeypatch.undo()
    assert outcome.code == 0, outcome.err
    assert looks
    lines, expected = (read_json_lines(run / "metrics.jsonl") for run in (workplace / "run", fitted[1]))
    assert [line["val"] for line in lines] == [line["val"] for line in expected]
    assert all(0 < line["images_per_second"] < 1e6 for line in lines)
    times = json.loads((workplace / "run/tracking.json").read_text())["line_times"]
    assert times == sorted(times)


def limit_memory(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


@pytest.mark.parametrize("gigabytes", [1, 2])
def test_a_limit_on_memory_below_what_tensorflow_needs_is_refused_in_words(workplace, images, gigabytes):
    command = [sys.executable, "-m", "imagetune", "fit", str(images), "--run-dir", "run"]
    ended = subprocess.run(
        command, check=False, capture_output=True, text=True, preexec_fn=lambda: limit_memory(gigabytes << 30)
    )
    assert ended.returncode == 5, ended.stderr
    assert f"the limit on memory (ulimit -v) is {gigabytes}.0 GB, and TensorFlow needs 3 GB" in ended.stderr
    assert not (workplace / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["none", "64 MB"])
def test_workers_need_no_more_shared_memory_than_docker_gives(workplace, commands, memory):
    """`docker run` gives 64 MB of /dev/shm; some machines have none."""
    (workplace / "imagetune").write_text(REAL)
    shared = "umount /dev/shm" if memory == "none" else "mount -t tmpfs -o size=64m tmpfs /dev/shm"
    words = " ".join(f"'{word}'" for word in (*FIT, "-o", "data.workers=2"))
    command = ["unshare", "--mount", "sh", "-c", f"{shared} || exit 99; exec sh imagetune {words}"]
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}:{PROJECT / 'tests/helpers'}"}
    ended = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if ended.returncode in (1, 99) and not (workplace / "disk").exists():
        pytest.skip("this process may not mount a disk")
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert read_state(workplace / "disk/run") == "finished"


def test_row_38_a_lock_that_a_dead_process_held_holds_nothing(commands, workplace):
    """A run is killed while it holds the locks of its folder, of the caches and of the copy to MLflow."""
    began = commands.begin("fit", "colours.yaml", "--run-dir", "disk/run", "-o", "train.stages.0.epochs=500")
    run = workplace / "disk/run"
    began.await_file(run / "metrics.jsonl", 2)
    wait_until(lambda: (run / ".tracking.lock").exists() or not began.running)
    began.signal(9)
    assert began.wait().code == -9
    # The message of a new run names the dead process's, not one that writes.
    refused = commands.run("fit", "colours.yaml", "--run-dir", "disk/run")
    assert refused.code == 6
    assert "a run whose process has died" in refused.err
    ended = commands.run("sync", "disk/run")
    assert ended.code == 0, ended.err
    stopped = commands.run(
        *("fit", "colours.yaml", "--run-dir", "disk/run", "-o", "train.stages.0.epochs=500", "--resume"),
        *("--max-time", "1s"),
    )
    assert stopped.code == 75, stopped.err[-2000:]
