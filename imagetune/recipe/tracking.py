"""The ``tracking`` and ``evaluate`` sections."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from imagetune.recipe.base import PositiveInt, Section, Sequence

Metric = Literal[
    "accuracy",
    "balanced_accuracy",
    "precision",
    "recall",
    "f1",
    "top_k_accuracy",
    "log_loss",
    "roc_auc",
    "quadratic_weighted_kappa",
    "within_one_rank",
    "mean_average_precision",
    "micro_f1",
    "subset_accuracy",
    "hamming_loss",
    "r2",
    "spearman",
    "mae",
    "rmse",
]
LOWER_IS_BETTER = frozenset(("log_loss", "hamming_loss", "mae", "rmse"))
View = Literal["horizontal_flip", "vertical_flip", "rotate_90", "rotate_180", "rotate_270", "zoom_in"]


class TrackingConfig(Section):
    """Where MLflow gets its copy of the run. The run folder is always written first."""

    enabled: bool = True
    """False keeps the run in its folder only."""
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


class Requirement(Section):
    """A bar that a test figure has to reach."""

    metric: Metric
    """Name of a headline figure; which there are depends on data.task."""
    lower_bound: float | None = None
    """The lower end of the figure's interval must be at least this."""
    value: float | None = None
    """The figure itself must be at least this."""

    @model_validator(mode="after")
    def _one_bar(self) -> Self:
        if (self.lower_bound is None) == (self.value is None):
            raise ValueError("give either lower_bound or value")
        if self.metric in LOWER_IS_BETTER:
            raise ValueError(f"{self.metric} is better when lower, so it can't be required to be at least something")
        return self


class EvaluateConfig(Section):
    """The one test after all selection."""

    top_k: Annotated[int, Field(ge=2, le=100)] = 3
    """k of the top-k accuracy."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Resamplings behind each interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Coverage of the intervals."""
    batch_size: PositiveInt | None = None
    """Pictures a forward pass; by default the training batch size."""
    views: Sequence[View] = ()
    """Test-time augmentation: versions of each picture beside itself, whose probabilities are averaged, in evaluate
    and predict."""
    mistakes: Annotated[int, Field(ge=0, le=100)] = 24
    """How many of the worst mistakes the report shows as pictures."""
    require: Sequence[Requirement] = ()
    """Bars that the test must reach: the command fails with exit code 10 when one is missed."""
