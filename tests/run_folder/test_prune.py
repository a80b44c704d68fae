"""What pruning finds in folders of runs, and what it must never take."""

from __future__ import annotations

import inspect
import os
import sys
import time
from pathlib import Path

import pytest

from imagetune.core.files import write_json
from imagetune.core.leftovers import name_temporary
from imagetune.errors import ModelFileError
from imagetune.run_folder.folder import RunFolder, find_leftovers, open_run_folder
from imagetune.run_folder.prune import compute_freed_bytes, find_removals, remove

MB = 1_000_000
# Above the largest id that Linux gives.
DEAD = 2**22 + 1


def make_run(folder, state="finished", *, model=True, checkpoints=2, pid=None):
    """A run folder whose checkpoints share their start by hard links, as real ones do."""
    run = RunFolder(folder)
    folder.mkdir(parents=True)
    run.recipe.write_text("name: drawn\n")
    run.write_status(state)
    if pid is not None:
        write_json(run.status, {"state": state, "pid": pid})
    for number in range(checkpoints):
        place = run.checkpoints / f"step-{number:08d}"
        place.mkdir(parents=True)
        if number:
            os.link(run.checkpoints / "step-00000000" / "start.npz", place / "start.npz")
        else:
            (place / "start.npz").write_bytes(b"0" * MB)
    if model:
        run.model.mkdir()
        (run.model / "manifest.json").write_text("{}")
        (run.model / "model.weights.h5").write_bytes(b"1" * MB)
        run.keras_file.write_bytes(b"2" * MB)
    run.report.write_text("<h1>report</h1>")
    return run


def names(removals, root):
    return [(removal.run.relative_to(root).as_posix(), removal.what) for removal in removals]


def test_checkpoints_of_finished_runs_go_and_everything_else_stays(tmp_path):
    run = make_run(tmp_path / "runs" / "a")
    found = find_removals(tmp_path)
    assert names(found, tmp_path) == [("runs/a", "checkpoints")]
    # The two checkpoints share their start.
    assert compute_freed_bytes(found) == [MB]
    remove(found)
    left = {path.relative_to(run.path).as_posix() for path in run.path.rglob("*") if path.is_file()}
    assert left == {
        *("recipe.yaml", "status.json", "report.html", "model.keras"),
        *("model/manifest.json", "model/model.weights.h5"),
    }
    assert find_removals(tmp_path) == []


@pytest.mark.parametrize("state", ["failed", "killed"])
def test_what_resuming_a_run_needs_stays_until_it_is_given_up(tmp_path, state):
    make_run(tmp_path / "runs" / "a", state, model=False)
    assert find_removals(tmp_path, models=True) == []
    assert names(find_removals(tmp_path, unfinished=True), tmp_path) == [("runs/a", "whole run")]


def test_a_run_in_progress_is_left_alone_with_its_trials(tmp_path):
    make_run(tmp_path / "search", "running", pid=os.getpid())
    make_run(tmp_path / "search" / "trials" / "trial-001")
    assert find_removals(tmp_path, models=True, unfinished=True) == []


def test_models_go_only_when_that_is_asked_for(tmp_path):
    run = make_run(tmp_path / "a", checkpoints=0)
    make_run(tmp_path / "b", "killed", checkpoints=0)
    assert find_removals(tmp_path, unfinished=True) == []
    found = find_removals(tmp_path, models=True)
    assert names(found, tmp_path) == [("a", "model")]
    # As in a store of MLflow that refers to the file.
    os.link(run.keras_file, tmp_path / "mlflow.keras")
    assert compute_freed_bytes(found) == [MB + 2]


def test_trials_are_pruned_when_their_search_has_finished(tmp_path):
    search = make_run(tmp_path / "search", "killed", model=False, checkpoints=0)
    (search.path / "search.json").write_text("{}")
    make_run(search.path / "trials" / "trial-001", "failed", model=False)
    make_run(search.path / "interrupted" / "trial-001-1", "killed", model=False)
    assert find_removals(tmp_path, unfinished=True) == []
    search.write_status("finished")
    assert names(find_removals(tmp_path), tmp_path)[0] == ("search", "interrupted attempts")
    assert ("search/trials/trial-001", "checkpoints") in names(find_removals(tmp_path), tmp_path)


def test_links_and_folders_that_are_no_runs_are_not_touched(tmp_path):
    make_run(tmp_path / "elsewhere" / "a")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "images" / "checkpoints").mkdir(parents=True)
    assert find_removals(tmp_path / "runs") == []


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="there is no such folder"):
        find_removals(tmp_path / "nowhere")


def leave(folder, name, *, age=0.0):
    path = folder / name
    path.write_text("torn")
    os.utime(path, (time.time() - age, time.time() - age))
    return path


def test_temporary_files_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path):
    run = make_run(tmp_path / "a", state="killed", checkpoints=1)
    ours = name_temporary()
    dead = ours.replace(str(os.getpid()), str(DEAD))
    host = ours.split("-")[1]
    other = dead.replace(host, "0" * 6 if host != "0" * 6 else "1" * 6)
    gone = [leave(run.path, f"{dead}x.json"), leave(run.checkpoints, f"{dead}y"), leave(run.path, f"{other}z", age=1e6)]
    kept = [leave(run.path, f"{ours}x"), leave(run.path, f"{other}x"), leave(run.path, ".tmp-notes", age=1e6)]
    found = find_removals(run.path)
    assert {path for removal in found if removal.what == "leftovers" for path in removal.paths} == set(gone)
    open_run_folder(run.path)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


def test_temporary_files_stay_in_a_run_that_is_being_written_and_in_what_is_no_run(tmp_path):
    dead = name_temporary().replace(str(os.getpid()), str(DEAD))
    run = make_run(tmp_path / "a", state="running", checkpoints=0, pid=os.getpid())
    images = tmp_path / "images"
    images.mkdir()
    kept = [leave(run.path, f"{dead}x"), leave(images, f"{dead}x")]
    open_run_folder(run.path)
    run.predictions("val").parent.symlink_to(images)
    write_json(run.status, {"state": "finished"})
    assert find_leftovers(run) == [kept[0]]
    run.status.unlink()
    assert find_leftovers(run) == []
    assert all(path.exists() for path in kept)


def test_a_file_of_others_among_the_checkpoints_stays(tmp_path):
    run = make_run(tmp_path / "one")
    (run.checkpoints / "photos").mkdir()
    (run.checkpoints / "photos/mine.jpg").write_text("mine")
    remove(find_removals(tmp_path))
    assert [path.name for path in run.checkpoints.iterdir()] == ["photos"]
    assert (run.checkpoints / "photos/mine.jpg").read_text() == "mine"


def test_a_folder_that_can_not_be_read_does_not_keep_the_others_from_being_looked_at(tmp_path, monkeypatch):
    make_run(tmp_path / "runs/a")
    (tmp_path / "runs/closed").mkdir()
    make_run(tmp_path / "runs/z")
    # By a method of ours, as root may read everything.
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: os.scandir("/nowhere") if path.name == "closed" else listed(path))
    with pytest.raises(OSError, match="nowhere"):
        find_removals(tmp_path)
    unread = []
    found = find_removals(tmp_path, onerror=unread.append)
    assert {removal.run.name for removal in found} == {"a", "z"}
    assert [error.filename for error in unread] == ["/nowhere"]


def test_folders_in_each_other_are_looked_at_however_deep(tmp_path):
    deep = tmp_path
    for _ in range(400):
        deep = deep / "d"
    deep.mkdir(parents=True)
    make_run(deep / "run")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        assert [removal.what for removal in find_removals(tmp_path)] == ["checkpoints"]
    finally:
        sys.setrecursionlimit(limit)
