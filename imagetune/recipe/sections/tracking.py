"""The ``tracking`` section: which trackers get a copy of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imagetune.core.plugins import TRACKERS
from imagetune.recipe.plugin_names import NameOf
from imagetune.recipe.sections.base import Section, Sequence

MLFLOW = "mlflow"
TrackerName = Annotated[str, NameOf(TRACKERS, (MLFLOW,))]


class TrackingConfig(Section):
    """Where a copy of the run is tracked. The run folder is always written first, so tracking never stops training."""

    enabled: bool = True
    """Whether the run is tracked at all; false keeps it in its folder only."""
    tracker: TrackerName | Annotated[Sequence[TrackerName], Field(min_length=1)] = MLFLOW
    """Tracker or list of trackers: `mlflow`, or the name of a plug-in. The other keys are for MLflow alone."""
    uri: str | None = None
    """Address of the MLflow server or store; by default $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working
    folder."""
    experiment: str | None = None
    """Name of the MLflow experiment; by default $MLFLOW_EXPERIMENT_NAME, else the recipe's name."""
    required: bool = False
    """Whether an unreachable server stops the run before training (exit code 7); by default the records wait in the run
    folder for `imagetune sync`."""
    log_model: bool = True
    """Whether the model itself is logged too, as an MLflow model that takes image files, as bytes or in base64, and
    returns labels with probabilities."""
    tensorboard: bool = False
    """Whether TensorBoard logs are written to the run folder as well."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tags of the MLflow run, by name."""

    @property
    def plugin_trackers(self) -> tuple[str, ...]:
        """Names of the plug-in trackers, each once; empty where tracking is off."""
        return tuple(name for name in self._trackers if name != MLFLOW)

    @property
    def to_mlflow(self) -> bool:
        """Whether MLflow gets a copy of the run."""
        return MLFLOW in self._trackers

    @property
    def _trackers(self) -> tuple[str, ...]:
        named = (self.tracker,) if isinstance(self.tracker, str) else self.tracker
        return tuple(dict.fromkeys(named)) if self.enabled else ()
