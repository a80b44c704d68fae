"""The ``evaluate`` section: metrics, intervals, corruptions, operating point and requirements of the final test."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from imagetune.recipe.base import NonNegative, PositiveInt, Section, Sequence
from imagetune.recipe.metrics import TestMetric, is_lower_better

Corruption = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
    "rotation",
    "jpeg_quality",
    "resolution",
]
TTA = Literal["horizontal_flip", "vertical_flip", "rotate_90", "rotate_180", "rotate_270", "zoom_in"]


class Requirement(Section):
    """A bar that a test metric has to reach."""

    metric: TestMetric
    """Name of a headline metric; which there are depends on data.task."""
    lower_bound: float | None = None
    """The lower end of the metric's interval must be at least this."""
    upper_bound: float | None = None
    """Of a metric that is better when lower: the upper end of its interval must be at most this."""
    value: float | None = None
    """The metric itself must be at least this; one that is better when lower, at most."""

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        end = "upper_bound" if self.lower_is_better else "lower_bound"
        other = self.lower_bound if self.lower_is_better else self.upper_bound
        if other is not None or (getattr(self, end) is None) == (self.value is None):
            better = "lower" if self.lower_is_better else "higher"
            raise ValueError(f"{self.metric} is better when {better}: give either {end} or value")
        return self

    @property
    def lower_is_better(self) -> bool:
        """Whether the bar is a ceiling."""
        return is_lower_better(self.metric)

    @property
    def threshold(self) -> tuple[str, float]:
        """What the test must reach: ``lower_bound``, ``upper_bound`` or ``value``, and the number."""
        requirements = (("lower_bound", self.lower_bound), ("upper_bound", self.upper_bound), ("value", self.value))
        return next((kind, number) for kind, number in requirements if number is not None)


class RobustnessConfig(Section):
    """How the model is tested on corrupted versions of the test images; each is a forward pass over them."""

    corruptions: Sequence[Corruption] | Literal["all"] = "all"
    """The 15 common corruptions (Hendrycks and Dietterich 2019), and rotation, jpeg quality and resolution; `all` are
    these 18."""
    severities: Sequence[Annotated[int, Field(ge=1, le=5)]] = (1, 3, 5)
    """How much, 1 to 5, as in the paper."""
    images: PositiveInt = 200
    """Most test images that are used, drawn with equal shares of every class."""


class OperatingPointConfig(Section):
    """From which probability on the prediction is the class that matters; chosen on validation."""

    positive: str
    """The class that matters."""
    maximise: Literal["f1", "youden"] = "f1"
    """What the threshold is chosen for, where no least recall or precision is given."""
    min_recall: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead: the highest precision with at least this recall."""
    min_precision: Annotated[float, Field(gt=0, le=1)] | None = None
    """Instead: the highest recall with at least this precision."""

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if self.min_recall is not None and self.min_precision is not None:
            raise ValueError("give either min_recall or min_precision")
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
    """Images a forward pass; by default the training batch size."""
    tta: Sequence[TTA] = ()
    """Test-time augmentation: versions of each image beside itself, whose probabilities are averaged, in evaluate
    and predict."""
    mistakes: Annotated[int, Field(ge=0, le=100)] = 24
    """How many of the worst mistakes the report shows as images."""
    baselines: bool = True
    """Also test the majority class, the nearest neighbour and a linear probe, on the model's own features."""
    label_errors: bool = True
    """Also look for images that are probably mislabelled, by confident learning over the model's features."""
    slices: bool = True
    """Also look for parts of the test on which the model is worse: by size, brightness, blur, data.columns.slices."""
    conformal_coverage: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.9
    """Share of images whose true class is to be among those that a conformal set names."""
    costs: Sequence[Sequence[NonNegative]] | None = None
    """The cost of each mistake, a row a true class and a column a prediction, in the order of the classes;
    predictions are then also chosen by the lowest expected cost."""
    operating_point: OperatingPointConfig | None = None
    """For one class that matters: the probability from which on it is the prediction."""
    out_of_distribution: Literal["mahalanobis", "energy", "off"] = "mahalanobis"
    """The score that tells images unlike those of training; its threshold is chosen on validation."""
    out_of_distribution_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of validation images that the threshold of that score turns away."""
    explain: Annotated[int, Field(ge=0, le=100)] = 8
    """Of how many of the worst mistakes the report shows where the model looked (Grad-CAM)."""
    robustness: RobustnessConfig | None = None
    """Also test on corrupted images; a forward pass for each corruption and severity."""
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """Also cross-validate: train on each of so many parts of the images left out in turn."""
    require: Sequence[Requirement] = ()
    """Bars that the test must reach: the command fails with exit code 10 when one is missed."""
