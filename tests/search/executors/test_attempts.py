import json
import subprocess
import sys
import time

import pytest

from imagetune.search.executors import attempts
from imagetune.search.executors.attempts import (
    attempt,
    close_claim,
    list_lost_attempts,
    locate_claim,
    open_claim,
    sees_claim,
)

WRITER = """
import sys, time
from pathlib import Path
from imagetune.search.executors.attempts import attempt

folder = Path(sys.argv[1])
with attempt(folder, "search"):
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "status.json").write_text('{"state": "running", "epoch": 3}')
    file = (folder / "metrics").open("w")
    while True:
        print("more", file=file, flush=True)
        time.sleep(0.01)
"""


@pytest.fixture
def folder(tmp_path):
    open_claim(tmp_path / "trials" / "trial-001", "search")
    return tmp_path / "trials" / "trial-001"


@pytest.fixture
def writer(folder):
    """An attempt in another process, at work."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, folder])
    while not (folder / "metrics").exists():
        assert process.poll() is None
        time.sleep(0.02)
    yield process
    process.kill()
    process.wait()


def test_a_new_attempt_ends_the_old_one_and_begins_in_an_empty_folder(folder, writer):
    with attempt(folder, "search") as again:
        assert again
        assert not folder.exists()
        assert writer.wait(timeout=1) == 1
    assert [path.name for path in folder.parent.iterdir()] == [locate_claim(folder).name]
    (kept,) = list_lost_attempts(folder)
    assert sorted(path.name for path in kept.iterdir()) == ["metrics", "status.json"]
    assert json.loads((kept / "status.json").read_text()) == {"state": "killed", "epoch": 3}


def test_an_attempt_ends_when_its_search_has_given_it_up(folder, writer):
    close_claim(folder)
    assert writer.wait(timeout=10) == 1


def test_a_first_attempt_does_not_wait(folder):
    began = time.monotonic()
    with attempt(folder, "search") as again:
        assert not again
    assert time.monotonic() - began < 1


def test_an_attempt_that_is_the_latest_goes_on(folder, monkeypatch):
    monkeypatch.setattr(attempts, "_LOOK_SECONDS", 0.02)
    with attempt(folder, "search"):
        time.sleep(0.3)


def test_a_folder_of_the_same_name_on_another_disk_is_another_folder(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "_APPEAR_SECONDS", 0.1)
    assert sees_claim(folder, "search")
    assert not sees_claim(folder, "another search")
    assert not sees_claim(tmp_path / "elsewhere" / "trial-001", "search")
    with attempt(folder, "search"):
        assert sees_claim(folder, "search")
