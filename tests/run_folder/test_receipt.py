"""A run's receipt: every byte of its files counts, and only who writes a file renews its hash."""

import json
import os
import random
import shutil

import pytest
from finished_run import _finished_run, run_folder  # noqa: F401 - fixtures

from imagetune.core.documents import find_broken_seal, seal_document
from imagetune.core.files import write_json, write_text
from imagetune.run_folder.receipt import check_files, renew_receipt, write_receipt


@pytest.fixture
def run(run_folder):  # noqa: F811 - the fixture
    """A finished run with a receipt, tracked, with a fold that has a receipt of its own."""
    (run_folder / ".run.lock").touch()
    write_json(run_folder / "tracking.json", seal_document({"run_id": "abc"}))
    fold = run_folder / "folds" / "fold-1"
    fold.mkdir(parents=True)
    write_json(fold / "evaluation.json", {"format_version": 1})
    for folder in (fold, run_folder):
        write_receipt(folder)
    return run_folder


def list_files(run):
    return sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".run.lock")


def change_byte(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 + place % 255
    path.write_bytes(content)


def test_a_run_as_it_was_written_has_no_difference(run):
    check = check_files(run)
    assert (check.differences, check.missing, check.unrecorded) == ((), (), ())
    assert check.files == len(list_files(run))
    assert check.runs == ("folds/fold-1",)


def test_a_single_changed_byte_of_any_file_is_named(run):
    chance = random.Random(3)
    for path in list_files(run):
        before = path.read_bytes()
        for place in (0, chance.randrange(len(before)), len(before) - 1):
            change_byte(path, place)
            (named,) = check_files(run).differences
            assert named.where == path.relative_to(run).as_posix(), (path, place)
            path.write_bytes(before)


def test_files_that_are_gone_or_came_later_are_told_apart(run):
    (run / "splits.csv").unlink()
    (run / "note.txt").write_text("mine")
    check = check_files(run)
    assert (check.differences, check.missing, check.unrecorded) == ((), ("splits.csv",), ("note.txt",))


def test_a_receipt_that_is_gone_is_named(run):
    (run / "folds" / "fold-1" / "receipt.json").unlink()
    assert check_files(run).missing == ("folds/fold-1/receipt.json",)
    (run / "receipt.json").unlink()
    (named,) = check_files(run).differences
    assert (named.where, named.found[:12]) == ("receipt.json", "no such file")


def test_a_receipt_of_anyone_leads_nowhere_else(run):
    written = json.loads((run / "receipt.json").read_text())
    hostile = {"format_version": 1, "files": written["files"] | {"../../x": "0"}, "runs": [".", "..", "/"]}
    write_json(run / "receipt.json", seal_document(hostile))
    os.mkfifo(run / "pipe")
    (run / "link").symlink_to("/dev/zero")
    check = check_files(run)
    assert (check.runs, check.differences) == (("folds/fold-1",), ())
    assert check.missing == ("../../x", "./receipt.json", "../receipt.json", "//receipt.json")


def test_what_a_command_writes_is_renewed_and_nothing_else(run):
    change_byte(run / "splits.csv", 5)
    (run / "audit.json").unlink()
    with renew_receipt(run):
        write_text(run / "report.html", "<p>new</p>")
        (run / "metrics.jsonl").unlink()
    check = check_files(run)
    assert [one.where for one in check.differences] == ["splits.csv"]
    assert (check.missing, check.unrecorded) == (("audit.json",), ())


def test_a_block_that_fails_still_renews_what_it_wrote(run):
    with pytest.raises(OSError, match="full"), renew_receipt(run):
        write_text(run / "report.html", "<p>new</p>")
        raise OSError("full")
    assert not check_files(run).differences


def test_a_corrupted_receipt_stays_corrupted(run):
    change_byte(run / "receipt.json", 40)
    with renew_receipt(run):
        write_text(run / "report.html", "<p>new</p>")
    assert [one.where for one in check_files(run).differences] == ["receipt.json"]


def test_a_run_in_progress_gets_no_receipt_and_a_trial_is_in_that_of_its_search(run, tmp_path):
    with renew_receipt(tmp_path / "elsewhere"):
        pass
    assert not (tmp_path / "receipt.json").exists()
    trial = run / "trials" / "trial-001"
    trial.mkdir(parents=True)
    with renew_receipt(trial):
        write_text(trial / "status.json", "{}")
    assert not (trial / "receipt.json").exists()
    assert not check_files(run).unrecorded


def test_a_copied_run_still_has_its_receipt(run, tmp_path):
    shutil.copytree(run, tmp_path / "copy")
    os.utime(tmp_path / "copy" / "recipe.yaml", (1, 1))
    assert not check_files(tmp_path / "copy").differences


@pytest.mark.parametrize("change", [lambda text: text + "\n", lambda text: text.replace("abc", "abd"), lambda _: "{}"])
def test_a_seal_tells_every_change(change):
    text = json.dumps(seal_document({"name": "abc"}), indent=2) + "\n"
    assert find_broken_seal(text.encode()) == ""
    assert "another content" in find_broken_seal(change(text).encode())
