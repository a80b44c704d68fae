"""What must be in order before a run or a search begins, as it would otherwise leave a folder of nothing behind."""

from __future__ import annotations

from pathlib import Path

from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.run_folder.folder import check_run_place
from imagetune.tracking.patience import require_store


def check_start(run_dir: Path | None, tracking: TrackingConfig, *, begun: bool = False) -> None:
    """Make sure that a run folder can be made, and that a tracking server answers where the recipe requires it.

    Args:
        run_dir: The run folder; None for one below runs/.
        tracking: Where the run is copied to.
        begun: Whether the folder may hold a run, which is gone on with.

    Raises:
        RecipeError: The place of the folder can't be written to.
        CheckpointError: The folder holds a run already.
        TrackingError: Tracking is required, and the server doesn't answer.
    """
    check_run_place(run_dir, begun=begun)
    require_store(tracking)
