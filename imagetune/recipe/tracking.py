"""The ``tracking`` section: which trackers get a copy of a run."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imagetune.core.plugins import TRACKERS
from imagetune.recipe.base import Section, Sequence
from imagetune.recipe.plugin_names import NameOf

MLFLOW = "mlflow"
TrackerName = Annotated[str, NameOf(TRACKERS, (MLFLOW,))]


class TrackingConfig(Section):
    """Where MLflow gets its copy of the run. The run folder is always written first."""

    enabled: bool = True
    """False keeps the run in its folder only."""
    tracker: TrackerName | Annotated[Sequence[TrackerName], Field(min_length=1)] = MLFLOW
    """`mlflow`, the name of a plug-in, or a list of them. The keys below are for MLflow alone."""
    uri: str | None = None
    """MLflow server or store; by default $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db in the working folder."""
    experiment: str | None = None
    """Experiment name; by default $MLFLOW_EXPERIMENT_NAME, else the recipe's name."""
    required: bool = False
    """True stops before training (exit 7) when the server can't be reached; else records wait in the folder."""
    log_model: bool = True
    """Also log the model itself, as a Keras flavour with a signature."""
    tensorboard: bool = False
    """Also write TensorBoard logs to the run folder."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Tags for the MLflow run."""

    @property
    def plugin_trackers(self) -> tuple[str, ...]:
        """Names of the trackers that are plug-ins, each once; none where tracking is off."""
        return tuple(name for name in self._trackers if name != MLFLOW)

    @property
    def to_mlflow(self) -> bool:
        """Whether MLflow gets a copy."""
        return MLFLOW in self._trackers

    @property
    def _trackers(self) -> tuple[str, ...]:
        named = (self.tracker,) if isinstance(self.tracker, str) else self.tracker
        return tuple(dict.fromkeys(named)) if self.enabled else ()
