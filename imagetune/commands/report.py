"""report.html of a run or a search, written again from the files in its folder."""

from __future__ import annotations

from pathlib import Path

from imagetune.core.documents import name_foreign_document
from imagetune.core.messages import Say, say_nothing
from imagetune.run_folder.folder import open_run_folder
from imagetune.run_folder.receipt import renew_receipt
from imagetune.runs.pages import send_changes, write_pages
from imagetune.search.report import write as search_pages


def report(run: str, *, say: Say = say_nothing) -> Path:
    """Write report.html of a run or a search again, send what changed to MLflow, and return the page's path.

    Args:
        run: The folder of a run, in whatever state it ended, or of a search.
        say: Receives what could not be sent.

    Raises:
        ModelFileError: It is no run folder, or a file in it is corrupted.
        CheckpointError: A search's journal can't be read.
        ResourceError: The disk is full.
    """
    with name_foreign_document(Path(run), "a file of the run"):
        if search_pages.is_search(Path(run)):
            return search_pages.rewrite_search_report(run, say=say)
        # A failed run has a report, too: it shows how far the run came.
        folder = open_run_folder(Path(run), trained=False)
        with renew_receipt(folder.path):
            page = write_pages(folder)
        send_changes(folder, say=say)
        return page
