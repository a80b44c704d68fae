"""What must be in order before a run or a search begins, as it would otherwise leave a folder of nothing behind."""

from __future__ import annotations

from pathlib import Path

from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.run_folder.folder import check_run_place
from imagetune.tracking.required import require_store


def check_start(run_dir: Path | None, tracking: TrackingConfig) -> None:
    """Make sure that a run folder can be made, and that a tracking server answers where the recipe requires it.

    Raises:
        RecipeError: The place of the folder can't be written to.
        CheckpointError: The folder holds a run already.
        TrackingError: Tracking is required, and the server doesn't answer.
    """
    check_run_place(run_dir)
    require_store(tracking)
