"""Plots, model card and report of a run, written from the files in its folder, and sent to MLflow when they change."""

from __future__ import annotations

from pathlib import Path

from imagetune.core import run_files
from imagetune.core.messages import Say
from imagetune.errors import TrackingError
from imagetune.reports.run.model_card import write_model_card
from imagetune.reports.run.png_export import write_plots
from imagetune.reports.run.report import write_report
from imagetune.run_folder.folder import RunFolder, find_leftovers, remove_path
from imagetune.run_folder.receipt import renew_receipt, write_receipt
from imagetune.tracking.sync import is_tracked, sync_run


def write_pages(folder: RunFolder) -> Path:
    """Write the plots, the model card and the report of a run, and return the report's path."""
    write_plots(folder.path)
    write_model_card(folder.path)
    return write_report(folder.path)


def complete_run(folder: RunFolder, *, tracked: bool, say: Say) -> None:
    """Write the pages of a finished run and send them to MLflow, where an earlier process was killed before that.

    Args:
        folder: The run folder.
        tracked: Whether anything may be sent.
        say: Receives the warning where that fails.
    """
    for leftover in find_leftovers(folder):
        remove_path(leftover)
    if not folder.report.is_file():
        with renew_receipt(folder.path):
            write_pages(folder)
    if not (folder.path / run_files.RECEIPT).is_file():
        write_receipt(folder.path)
    if tracked:
        send_changes(folder, say=say)


def send_changes(folder: RunFolder, *, say: Say) -> None:
    """Send to MLflow the changed files of a tracked run that has ended; a failure is a warning.

    A running run sends its files itself, and one that was never tracked stays in its folder.

    Args:
        folder: The run folder.
        say: Receives the warning.
    """
    if not is_tracked(folder.path) or folder.read_status().get("state") == "running":
        return
    try:
        sync_run(folder.path)
    except TrackingError as error:
        say("warning", f"the new pages were not sent to MLflow ({error}); send them with: imagetune sync {folder.path}")
