"""The ``evaluate`` section: metrics, intervals, corruptions, operating point and requirements of the final test."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from imagetune.recipe.metrics import TestMetric, is_lower_better
from imagetune.recipe.sections.base import BatchSize, Finite, NonNegative, Section, Sequence

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
TTATransform = Literal["horizontal_flip", "vertical_flip", "rotate_90", "rotate_180", "rotate_270", "zoom_in"]


class Requirement(Section):
    """A threshold that a test metric has to reach; a missed one ends the command with exit code 10."""

    metric: TestMetric
    """Name of a test metric; data.task decides which there are."""
    lower_bound: Finite | None = None
    """Least value of the lower end of the metric's confidence interval, for metrics that are better when higher."""
    upper_bound: Finite | None = None
    """Greatest value of the upper end of the metric's confidence interval, for metrics that are better when lower."""
    value: Finite | None = None
    """Threshold of the metric itself: its least value, or its greatest where lower is better."""

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
        """Whether the threshold is the greatest value allowed, because the metric is better when lower."""
        return is_lower_better(self.metric)

    @property
    def threshold(self) -> tuple[str, float]:
        """Kind of the threshold (``lower_bound``, ``upper_bound`` or ``value``), and the number."""
        requirements = (("lower_bound", self.lower_bound), ("upper_bound", self.upper_bound), ("value", self.value))
        return next((kind, number) for kind, number in requirements if number is not None)


class RobustnessConfig(Section):
    """The robustness test on corrupted test images: a forward pass over them for each corruption and severity."""

    corruptions: Sequence[Corruption] | Literal["all"] = "all"
    """Corruptions to test: names of the 15 common ones (Hendrycks and Dietterich 2019), `rotation`, `jpeg_quality`
    and `resolution`; `all` means these 18."""
    severities: Sequence[Annotated[int, Field(ge=1, le=5)]] = (1, 3, 5)
    """Severities of each corruption, 1 (slight) to 5 (strong), as in the paper."""
    images: Annotated[int, Field(ge=1, le=1_000_000)] = 200
    """Largest number of test images used; they are drawn at random with equal shares of every class."""


class OperatingPointConfig(Section):
    """The operating point: the probability from which on one class of interest is predicted, chosen on validation."""

    positive: str
    """Name of the class of interest."""
    maximise: Literal["f1", "youden"] = "f1"
    """What the threshold maximises, the F1 score or Youden's J, where min_recall and min_precision are left out."""
    min_recall: Annotated[float, Field(gt=0, le=1)] | None = None
    """Least recall, above 0 and up to 1: the threshold is then that of the highest precision with this recall."""
    min_precision: Annotated[float, Field(gt=0, le=1)] | None = None
    """Least precision, above 0 and up to 1: the threshold is then that of the highest recall with this precision."""

    @model_validator(mode="after")
    def _one_goal(self) -> Self:
        if self.min_recall is not None and self.min_precision is not None:
            raise ValueError("give either min_recall or min_precision")
        return self


class EvaluateConfig(Section):
    """What the final test measures, once all selection is done, and what it must reach."""

    top_k: Annotated[int, Field(ge=2, le=100)] = 3
    """k of the top-k accuracy, 2 to 100."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000)] = 1000
    """Number of bootstrap resamples, and most images or groups that the jackknife leaves out in turn, 100 to 100000."""
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    """Coverage of the confidence intervals, between 0.5 and 1."""
    batch_size: BatchSize | None = None
    """Images in a forward pass; by default the training batch size."""
    # A flip doubles the forward passes, and had no clear effect on small image sets (docs/strategies.md).
    tta: Sequence[TTATransform] = ()
    """Test-time augmentation: transforms of each image whose predictions are averaged with its own, in evaluate and
    predict. By default only the image itself is seen."""
    mistakes: Annotated[int, Field(ge=0, le=100)] = 24
    """Number of the worst mistakes that the report shows as images, 0 to 100."""
    baselines: bool = True
    """Whether baselines are tested too: majority class, nearest neighbours and a linear probe on the same features."""
    label_errors: bool = True
    """Whether suspected label errors are looked for, by confident learning on the model's features."""
    slices: bool = True
    """Whether slices of the test on which the model is worse are looked for: by image size, brightness, blur and the
    columns of data.columns.slices."""
    conformal_coverage: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.9
    """Coverage of conformal prediction sets, between 0.5 and 1: the share of images whose set holds the true class."""
    costs: Sequence[Sequence[NonNegative]] | None = None
    """Cost of each mistake, 0 or more: a row for each true class and a column for each predicted class, in the order of
    the classes. Predictions are then also chosen by the lowest expected cost."""
    operating_point: OperatingPointConfig | None = None
    """Operating point of one class of interest: the probability from which on it is predicted. By default there is
    none."""
    out_of_distribution: Literal["mahalanobis", "energy", "off"] = "mahalanobis"
    """Score that finds out-of-distribution images; its threshold is chosen on validation. `off` scores none."""
    out_of_distribution_share: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Largest share of images like those of the training that the threshold of that score flags, above 0 and below
    0.5; fewer with a certainty of 90%."""
    explain: Annotated[int, Field(ge=0, le=100)] = 8
    """Number of the worst mistakes for which the report shows a saliency map (Grad-CAM), 0 to 100."""
    robustness: RobustnessConfig | None = None
    """Robustness test on corrupted images, a forward pass for each corruption and severity; by default there is
    none."""
    folds: Annotated[int, Field(ge=2, le=20)] | None = None
    """Number of folds of a cross-validation, 2 to 20: each is held out once, the model trained on the others. By
    default there is none."""
    require: Sequence[Requirement] = ()
    """Requirements that the test must meet; the command ends with exit code 10 when one is missed."""
