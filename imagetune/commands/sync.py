"""A run or a search copied to MLflow as far as it is not there yet."""

from __future__ import annotations

from pathlib import Path

from imagetune.core.documents import name_foreign_document
from imagetune.run_folder.folder import refuse_links_out
from imagetune.search.mlflow_trials import sync_search
from imagetune.search.report.write import is_search
from imagetune.tracking.sync import sync_run


def sync(run_dir: Path) -> str:
    """Send to MLflow what it lacks of a run or a search, and return a message that says what was sent.

    Args:
        run_dir: The folder of a run or a search.

    Raises:
        TrackingError: It is no run folder, or MLflow can't be reached.
        ModelFileError: A file of the run isn't what imagetune writes.
    """
    if run_dir.is_dir():
        refuse_links_out(run_dir)
    with name_foreign_document(run_dir, "a file of the run"):
        return sync_search(run_dir) if is_search(run_dir) else sync_run(run_dir).message()
