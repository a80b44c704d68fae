"""Which page is written again: a run's or a search's."""

from __future__ import annotations

import pytest

from imagetune.commands import report as command
from imagetune.commands import sync
from imagetune.errors import ModelFileError
from imagetune.run_folder.folder import RunFolder


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    folder.write_status("failed")
    return folder


@pytest.fixture
def written(monkeypatch):
    """What was written and sent."""
    steps = []

    def page(kind):
        def write(folder, *_, **__):
            steps.append(kind)
            return folder.report if isinstance(folder, RunFolder) else None

        return write

    monkeypatch.setattr(command, "write_pages", page("run"))
    monkeypatch.setattr(command, "send_changes", lambda folder, say: steps.append(f"sent {folder.path.name}"))
    monkeypatch.setattr(command.search_pages, "rewrite_search_report", page("search"))
    return steps


def test_a_run_that_failed_has_a_page_too(folder, written):
    assert command.report(str(folder.path)) == folder.report
    assert written == ["run", "sent run"]


def test_a_search_has_its_own_page(folder, written):
    (folder.path / "search.json").write_text("{}")
    command.report(str(folder.path))
    assert written == ["search"]


def test_another_folder_is_refused(tmp_path, written):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match="it is no run folder"):
        command.report(str(tmp_path / "empty"))
    assert written == []


def test_a_search_is_sent_with_its_trials(folder, monkeypatch):
    monkeypatch.setattr(sync, "sync_search", lambda run_dir: "3 trials")
    monkeypatch.setattr(sync, "sync_run", lambda run_dir: type("Sent", (), {"message": lambda self: "1 run"})())
    assert sync.sync(folder.path) == "1 run"
    (folder.path / "search.json").write_text("{}")
    assert sync.sync(folder.path) == "3 trials"
