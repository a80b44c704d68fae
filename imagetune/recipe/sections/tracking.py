"""The ``tracking`` section: which trackers get a copy of a run."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from imagetune.core.plugins import TRACKERS
from imagetune.core.secrets import redact_uri
from imagetune.recipe.plugin_names import NameOf
from imagetune.recipe.sections.base import Section, Sequence

MLFLOW = "mlflow"
# What MLflow itself has. Other packages add schemes by entry points of this group.
_SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks", "file")
_MLFLOW_STORES = "mlflow.tracking_store"
_EXPECTED = "expected an address such as http://HOST:5000, sqlite:///mlflow.db or postgresql://HOST/mlflow"
_ENCODED = "signs such as / and @ in a password are written %2F and %40"

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

    @field_validator("uri")
    @classmethod
    def _of_a_store(cls, uri: str | None) -> str | None:
        if uri is not None and (problem := find_uri_problem(uri)):
            raise ValueError(problem)
        return uri

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


def find_uri_problem(uri: str) -> str:
    """Return why a text is no address of an MLflow store, without any secret of it; "" where it is one."""
    shown = repr(redact_uri(uri))
    # The name of a folder may have blanks.
    if not uri.isprintable() or (" " in uri and not uri.startswith(("sqlite:", "file:"))):
        return f"{shown} has blanks or control characters: {_EXPECTED}"
    if uri == "databricks":
        return ""
    scheme, slashes, _ = uri.partition("://")
    # A driver may be named after a plus sign, as in mysql+pymysql.
    store = scheme.partition("+")[0].lower()
    if not slashes:
        return f"{shown} has no `://`: {_EXPECTED}"
    if store not in _SCHEMES and store not in entry_points(group=_MLFLOW_STORES).names:
        return f"{shown} is no store that MLflow has: {_EXPECTED}"
    if store in ("http", "https") and not _names_server(uri):
        return f"{shown} names no server: {_EXPECTED}; {_ENCODED}"
    return ""


def _names_server(uri: str) -> bool:
    try:
        parts = urlsplit(uri)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    # Its text may show what was taken for a port: the beginning of a password with a slash in it.
    except ValueError:
        return False
