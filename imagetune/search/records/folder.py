"""The folder of a search that is to be resumed, looked at before anything is imported or started for it."""

from __future__ import annotations

from pathlib import Path

from imagetune.core import run_files
from imagetune.errors import CheckpointError
from imagetune.run_folder.folder import RUNS, refuse_links_out


def check_resumable(run_dir: Path | None) -> Path:
    """Return the run folder of the search to resume.

    Raises:
        CheckpointError: No folder is named, or there is no search in it.
        ModelFileError: A link leads out of it.
    """
    if run_dir is None:
        raise CheckpointError("--resume needs the run folder of a search", hint=_suggest_run_dir())
    if not (run_dir / run_files.SEARCH).is_file():
        hint = "leave out --resume to start one there" if not run_dir.exists() else "name the folder of a search"
        raise CheckpointError("there is no search to go on with", where=str(run_dir), hint=hint)
    refuse_links_out(run_dir)
    return run_dir


def _suggest_run_dir() -> str:
    found = sorted(Path(RUNS).glob(f"*/{run_files.SEARCH}"), key=lambda path: path.stat().st_mtime)
    if not found:
        return "name it, as in: imagetune search RECIPE --run-dir runs/NAME --resume"
    return f"the latest is {found[-1].parent}: imagetune search RECIPE --run-dir {found[-1].parent} --resume"
