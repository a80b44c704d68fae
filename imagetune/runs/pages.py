"""The pages of a run, drawn from the files in its folder, and sent to MLflow when they change."""

from __future__ import annotations

from pathlib import Path

from imagetune.core.messages import Say
from imagetune.errors import TrackingError
from imagetune.reports.run.model_card import write_model_card
from imagetune.reports.run.png_export import write_plots
from imagetune.reports.run.report import write_report
from imagetune.run_folder.folder import RunFolder
from imagetune.tracking.sync import is_tracked, sync_run


def write_pages(folder: RunFolder) -> Path:
    """Draw the metrics of a run, write its model card and its report, and return the report's path."""
    write_plots(folder.path)
    write_model_card(folder.path)
    return write_report(folder.path)


def send_changes(folder: RunFolder, *, say: Say) -> None:
    """Send to MLflow what changed in the folder of an ended run that is there already; say so where that fails.

    A run that goes on sends it itself, and one that was never tracked stays in its folder.
    """
    if not is_tracked(folder.path) or folder.read_status().get("state") == "running":
        return
    try:
        sync_run(folder.path)
    except TrackingError as error:
        say("warning", f"MLflow has not got the new pages ({error}); later: imagetune sync {folder.path}")
