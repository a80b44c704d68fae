"""Writing the report of a search: at its end, however it ends, and again on request."""

from __future__ import annotations

from pathlib import Path

from imagetune.core import run_files
from imagetune.core.messages import Say
from imagetune.errors import ImagetuneError, StoppedError
from imagetune.run_folder.folder import RunFolder
from imagetune.run_folder.receipt import renew_receipt
from imagetune.runs.pages import send_changes
from imagetune.search.report.report import write_search_report


def is_search(folder: Path) -> bool:
    """Return whether a folder is that of a search."""
    return (folder / run_files.SEARCH).is_file()


def rewrite_search_report(run: str, *, say: Say) -> Path:
    """Write report.html of a search again, from the files in its folder, and send what changed to MLflow.

    Args:
        run: The search's folder.
        say: Prints a line for the user.

    Returns:
        The file.

    Raises:
        ModelFileError: A file of the search is corrupted.
        CheckpointError: Its journal can't be read.
        ResourceError: The disk is full.
    """
    folder = RunFolder(Path(run).absolute())
    with renew_receipt(folder.path):
        page = write_search_report(folder.path)
    send_changes(folder, say=say)
    return page


def write_last_report(folder: Path, *, say: Say) -> None:
    """Write report.html of a search that ends, where there is something to show; say so where that fails.

    What ended the search must not be lost over its page.
    """
    if not is_search(folder) or not (folder / run_files.JOURNAL).is_file():
        return
    try:
        write_search_report(folder)
    # A signal that comes meanwhile ends the program: it isn't a page that failed.
    except StoppedError:
        raise
    except ImagetuneError as error:
        say("warning", f"report.html could not be written: {error}")
