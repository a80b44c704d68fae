"""The ``search`` section, and the search spaces that may stand in the place of any value of a recipe."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from imagetune.recipe.metrics import EpochMetric
from imagetune.recipe.problems import format_value
from imagetune.recipe.sections.base import LARGEST, Epochs, Finite, Positive, PositiveInt, Section, Sequence

WholeNumber = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
# A value that a space stands for: a scalar, a list or a whole section.
Value = JsonValue


Trials = Annotated[int, Field(ge=1, le=100_000)]
Repeats = Annotated[int, Field(ge=0, le=1_000)]


class BudgetConfig(Section):
    """The most that a search may cost; trials that are running when it is used up still finish."""

    trials: Trials | None = None
    """Largest number of trials, repeats of finalists not counted; it also limits hyperband and sweep. By default there
    is no limit."""
    hours: Annotated[float, Field(gt=0.0, le=100_000.0, allow_inf_nan=False)] | None = None
    """Largest time of all trials in hours, over all sessions of a resumed search; then no trial starts any more. A
    bakeoff keeps enough of it for the refit. By default there is no limit."""


class RayConfig(Section):
    """How trials run on a Ray cluster; its machines all need the images and the run folder under the same path."""

    address: str = "auto"
    """Address of the cluster as host:port; `auto` finds the one that this machine belongs to or that RAY_ADDRESS names,
    `local` starts one that ends with the search."""
    cpus: Annotated[int, Field(ge=1, le=1_024)] = 2
    """Number of CPUs reserved for each trial."""
    gpus: Annotated[float, Field(ge=0.0, le=1_024.0, allow_inf_nan=False)] = 0
    """Number of GPUs reserved for each trial; a fraction such as 0.5 shares a GPU, and 0 trains on CPUs."""
    retries: Repeats = 2
    """Number of times that a trial is started again after its process or machine was lost."""

    @field_validator("address")
    @classmethod
    def _of_the_cluster(cls, address: str) -> str:
        if "://" in address:
            raise ValueError(
                f"{address!r} is an address of Ray Client; run the search on a machine of the cluster, with auto"
            )
        return address

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"{gpus:g} GPUs: Ray reserves a fraction of one GPU, or whole GPUs")
        return gpus


class SearchConfig(Section):
    """How `imagetune search` explores the spaces of the recipe."""

    # On recorded trainings the best loss of 20 trials was 1.053, that of random search 1.082 (docs/performance.md).
    algorithm: Literal["random", "grid", "bayesian", "hyperband", "sweep", "bakeoff"] = "bayesian"
    """Algorithm of the search. `random`, `grid`, `bayesian` and `hyperband` are KerasTuner's oracles. `sweep` changes
    one value at a time around the defaults. `bakeoff` ranks backbones by cross-validated linear probes on their
    features, and fine-tunes the best few."""
    objective: EpochMetric = "f1"
    """Validation metric to optimise, in the epoch whose weights a run keeps (see train.early_stopping.metric)."""
    trials: Trials = 20
    """Number of trials that random and bayesian search propose, and the largest number of points of a grid; the other
    algorithms decide by themselves."""
    budget: BudgetConfig = BudgetConfig()
    """Limits of trials and time, at which the search stops earlier."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Random seed of the proposals; by default the recipe's."""
    max_epochs: Epochs | None = None
    """Number of epochs of hyperband's longest trials; by default the epochs of all stages of the recipe."""
    factor: Annotated[int, Field(ge=2, le=100)] = 3
    """Reduction factor of hyperband, 2 or more: one trial in this many goes on to the next rung."""
    early_stop: Literal["median", "none"] = "median"
    """Early stopping of trials. `median` ends a trial whose best metric so far is worse than the median of the running
    averages of earlier trials at the same epoch (Golovin et al. 2017); hyperband and sweep never use it."""
    folds: Annotated[int, Field(ge=2, le=100)] | None = None
    """Number of folds, 2 or more: a trial is then judged by its mean over the folds of the training and validation
    images. By default it is judged on the validation split; the linear probes of a bakeoff then have 5 folds."""
    finalists: Repeats = 3
    """Number of the best settings that are trained again with other seeds, so that the winner isn't luck; for bakeoff,
    the number of backbones that are fine-tuned."""
    repeats: Annotated[int, Field(ge=1, le=1_000)] = 3
    """Number of trainings of each finalist in all, each with another seed; for sweep, of every setting."""
    prefer: Literal["accuracy", "speed", "size"] = "accuracy"
    """Which finalists a bakeoff takes: those with the best probes, or of the backbones within one standard error of the
    best probe the one with the lowest latency or the smallest size."""
    max_latency_ms: Positive | None = None
    """Largest latency of one image in milliseconds, as measured on this machine, that a finalist of a bakeoff may have.
    By default there is no limit."""
    refit: Literal["train", "train_and_val"] = "train"
    """Images that the winner is trained on before its test: the training images, or the validation images as well, for
    the number of epochs that was best."""
    warm_start: Sequence[str] = ()
    """Earlier searches on the same images, by run folder or runs:/ address: their trials are known from the beginning,
    and only the best of them is tried again, first. By default there are none."""
    parallel: Annotated[int, Field(ge=1, le=1_024)] | Literal["auto"] = "auto"
    """Number of trials at a time; `auto` is one for each GPU, else one for each core where only heads are trained and
    one for four cores where the backbone is trained, as far as memory allows."""
    executor: Literal["local", "ray"] = "local"
    """Where trials run: in processes on this machine, or on a Ray cluster."""
    ray: RayConfig = RayConfig()
    """The Ray cluster and what a trial reserves on it."""

    @field_validator("warm_start", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class _Conditional(Section):
    """A search space with the condition under which it is searched."""

    when: dict[str, Annotated[Sequence[Value], Field(min_length=1)]] = Field(default_factory=dict)
    """Condition: dotted paths of other search spaces (choice or int) with the value or values that each must have for
    this space to be searched. Otherwise, and where one of them isn't searched itself, the default applies."""

    @field_validator("when", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: wanted if isinstance(wanted, (list, tuple)) else [wanted] for key, wanted in value.items()}


class LogUniformSpace(_Conditional):
    """A search space of numbers whose logarithm is uniform between low and high."""

    search: Literal["log_uniform"]
    low: Positive
    """Smallest value."""
    high: Positive
    """Largest value."""
    default: Finite | None = None
    """Value that `fit` uses; by default the geometric mean of low and high."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        return self

    @property
    def fallback(self) -> float:
        """Value that `fit` uses: the default, or what stands for it."""
        # The middle on the scale that is searched: the arithmetic mean of 1e-6 and 1e-1 would be nearly 1e-1.
        return math.sqrt(self.low * self.high) if self.default is None else self.default


class UniformSpace(_Conditional):
    """A search space of numbers, uniform between low and high."""

    search: Literal["uniform"]
    low: Finite
    """Smallest value."""
    high: Finite
    """Largest value."""
    default: Finite | None = None
    """Value that `fit` uses; by default the mean of low and high."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        return self

    @property
    def fallback(self) -> float:
        """Value that `fit` uses: the default, or what stands for it."""
        return (self.low + self.high) / 2 if self.default is None else self.default


class IntSpace(_Conditional):
    """A search space of whole numbers from low to high, both included."""

    search: Literal["int"]
    low: WholeNumber
    """Smallest value."""
    high: WholeNumber
    """Largest value, if the steps reach it."""
    step: PositiveInt = 1
    """Distance between two neighbouring values."""
    default: WholeNumber | None = None
    """Value that `fit` uses; by default low."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        if self.low + self.step > self.high:
            raise ValueError(f"a step of {self.step} leaves only {self.low} between {self.low} and {self.high}")
        return self

    @property
    def fallback(self) -> int:
        """Value that `fit` uses: the default, or what stands for it."""
        return self.low if self.default is None else self.default

    @property
    def points(self) -> range:
        """All values of the space, rising."""
        return range(self.low, self.high + 1, self.step)


class ChoiceSpace(_Conditional):
    """A search space of listed values: scalars, lists or whole sections, mixed as you like."""

    search: Literal["choice"]
    values: Annotated[Sequence[Value], Field(min_length=1)]
    """Values to choose from, each once."""
    default: Value = None
    """Value that `fit` uses; by default the first of the values."""

    @model_validator(mode="after")
    def _default_is_a_value(self) -> Self:
        # A default of null is a value as well, so whether it was written decides.
        if "default" in self.model_fields_set and find_index(self.values, self.default) is None:
            raise ValueError(
                f"default {format_value(self.default)} is not among the values "
                f"{', '.join(map(format_value, self.values))}"
            )
        return self

    @model_validator(mode="after")
    def _distinct_values(self) -> Self:
        seen: set[str] = set()
        for value in self.values:
            if (text := _as_text(value)) in seen:
                raise ValueError(f"{format_value(value)} appears twice among the values")
            seen.add(text)
        return self

    @property
    def fallback(self) -> Value:
        """Value that `fit` uses: the default, or what stands for it."""
        return self.default if "default" in self.model_fields_set else self.values[0]


Space = Annotated[LogUniformSpace | UniformSpace | IntSpace | ChoiceSpace, Field(discriminator="search")]


def find_index(values: Iterable[Value], value: Value) -> int | None:
    """Return the index of a value, None where it is not among them.

    Values are compared as JSON: 1, 1.0 and true are equal in Python and mean different things in a recipe.
    """
    wanted = _as_text(value)
    return next((index for index, candidate in enumerate(values) if _as_text(candidate) == wanted), None)


def _as_text(value: Value) -> str:
    return json.dumps(value, sort_keys=True)


def _check_range(low: float, high: float, default: float | None) -> None:
    if low >= high:
        raise ValueError(f"low {low:g} is not below high {high:g}")
    if default is not None and not low <= default <= high:
        raise ValueError(f"default {default:g} is outside {low:g} to {high:g}")
