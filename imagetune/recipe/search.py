"""The ``search`` section, and the spaces that any value of a recipe may be replaced by."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, field_validator, model_validator

from imagetune.recipe.base import NonNegative, NonNegativeInt, Positive, PositiveInt, Section, Sequence
from imagetune.recipe.metrics import EpochMetric
from imagetune.recipe.problems import shown

# What a space may stand for: a scalar, a list or a whole section.
Value = JsonValue


class BudgetConfig(Section):
    """What a search may cost at most; what runs when it is used up ends as usual."""

    trials: PositiveInt | None = None
    """Trials in all, repeats of finalists not counted; limits hyperband and sweep, too."""
    hours: Positive | None = None
    """Hours of trials, all sessions of a resumed search together; then nothing new starts but the finalists."""


class RayConfig(Section):
    """How trials run on a Ray cluster, whose machines all see the images and the run folder under the same path."""

    address: str = "auto"
    """Address of the cluster, host:port; `auto` finds the one that this machine belongs to or that RAY_ADDRESS names,
    `local` starts one that ends with the search."""
    cpus: PositiveInt = 2
    """Processors that a trial holds."""
    gpus: NonNegative = 0
    """GPUs that a trial holds; a part of one, such as 0.5, shares it, and 0 trains on processors."""
    retries: NonNegativeInt = 2
    """How often a trial starts again whose process or machine is lost."""

    @field_validator("address")
    @classmethod
    def _of_the_cluster(cls, address: str) -> str:
        if "://" in address:
            raise ValueError(f"{address!r} is Ray Client's; run the search on a machine of the cluster, with auto")
        return address

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, gpus: float) -> float:
        if gpus > 1 and gpus != int(gpus):
            raise ValueError(f"{gpus:g} GPUs: Ray gives a part of one, or whole ones")
        return gpus


class SearchConfig(Section):
    """How `imagetune search` explores the spaces of the recipe."""

    algorithm: Literal["random", "grid", "bayesian", "hyperband", "sweep", "bakeoff"] = "bayesian"
    """`random`, `grid`, `bayesian` and `hyperband` are KerasTuner's oracles. `sweep` changes one value at a time around
    the defaults. `bakeoff` ranks backbones by cross-validated linear probes on their features, and fine-tunes the best
    few."""
    objective: EpochMetric = "f1"
    """Validation metric to optimise, of the epoch whose weights a run keeps (`train.early_stopping.metric` decides)."""
    trials: PositiveInt = 20
    """Trials that random and bayesian search propose, and the most points of a grid; the others decide themselves."""
    budget: BudgetConfig = BudgetConfig()
    """When to stop before that."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    """Seed of the proposals; by default the recipe's."""
    max_epochs: PositiveInt | None = None
    """Hyperband: epochs of its longest trials; by default those of the recipe's stages together."""
    factor: Annotated[int, Field(ge=2)] = 3
    """Hyperband: how many trials drop out at each rung."""
    early_stop: Literal["median", "none"] = "median"
    """`median` ends a trial whose best metric so far is worse than the median of what earlier trials had averaged by
    the same epoch (Golovin et al. 2017); hyperband and sweep never use it."""
    folds: Annotated[int, Field(ge=2)] | None = None
    """Judge a trial by the mean over so many folds of the training and validation images, in place of the one
    validation split. The probes of a bakeoff have folds in any case, 5 where this says nothing."""
    finalists: NonNegativeInt = 3
    """How many of the best settings are trained again with other seeds, so that the winner isn't luck; for bakeoff, how
    many backbones are fine-tuned."""
    repeats: PositiveInt = 3
    """Trainings of each finalist in all, each with another seed; for sweep, of every setting."""
    refit: Literal["train", "train_and_val"] = "train"
    """What the winner is trained on before its one test: the training images, or the validation images as well, for
    as many epochs as were best."""
    warm_start: Sequence[str] = ()
    """Earlier searches of the same images, by their run folder or runs:/ address: their trials are known from the
    beginning, and not tried again but for the best, which comes first."""
    parallel: PositiveInt | Literal["auto"] = "auto"
    """Trials at a time; `auto` is one for each GPU, else one a core where only heads learn and one for four cores
    where the backbone does, as far as memory goes."""
    executor: Literal["local", "ray"] = "local"
    """Where trials run: in processes of this machine, or on a Ray cluster."""
    ray: RayConfig = RayConfig()
    """The cluster."""

    @field_validator("warm_start", mode="before")
    @classmethod
    def _one_or_more(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class _Conditional(Section):
    """What every space may have."""

    when: dict[str, Annotated[Sequence[Value], Field(min_length=1)]] = Field(default_factory=dict)
    """Dotted paths of other spaces (choices or whole numbers) with the value or list of values that each must have for
    this one to be searched; where one has another, or isn't searched itself, this one's default stays in force."""

    @field_validator("when", mode="before")
    @classmethod
    def _lists(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: wanted if isinstance(wanted, (list, tuple)) else [wanted] for key, wanted in value.items()}


class LogUniformSpace(_Conditional):
    """Numbers whose logarithm is uniform between low and high."""

    search: Literal["log_uniform"]
    low: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    """The smallest."""
    high: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    """The largest."""
    default: float | None = None
    """What `fit` uses; by default the geometric middle."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        return self

    @property
    def fallback(self) -> float:
        """What `fit` uses."""
        return math.sqrt(self.low * self.high) if self.default is None else self.default


class UniformSpace(_Conditional):
    """Numbers uniform between low and high."""

    search: Literal["uniform"]
    low: Annotated[float, Field(allow_inf_nan=False)]
    """The smallest."""
    high: Annotated[float, Field(allow_inf_nan=False)]
    """The largest."""
    default: float | None = None
    """What `fit` uses; by default the middle."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        return self

    @property
    def fallback(self) -> float:
        """What `fit` uses."""
        return (self.low + self.high) / 2 if self.default is None else self.default


class IntSpace(_Conditional):
    """Whole numbers from low to high, both included."""

    search: Literal["int"]
    low: int
    """The smallest."""
    high: int
    """The largest that may come, if the steps reach it."""
    step: PositiveInt = 1
    """Distance of two numbers."""
    default: int | None = None
    """What `fit` uses; by default the lowest."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        if self.low + self.step > self.high:
            raise ValueError(f"a step of {self.step} leaves only {self.low} between {self.low} and {self.high}")
        return self

    @property
    def fallback(self) -> int:
        """What `fit` uses."""
        return self.low if self.default is None else self.default

    @property
    def points(self) -> range:
        """The numbers."""
        return range(self.low, self.high + 1, self.step)


class ChoiceSpace(_Conditional):
    """One of several values: scalars, lists or whole sections, mixed as you like."""

    search: Literal["choice"]
    values: Annotated[Sequence[Value], Field(min_length=1)]
    """What to choose from."""
    default: Value = None
    """What `fit` uses; by default the first."""

    @model_validator(mode="after")
    def _default_is_a_value(self) -> Self:
        if "default" in self.model_fields_set and index_of(self.values, self.default) is None:
            raise ValueError(
                f"default {shown(self.default)} is not among the values {', '.join(map(shown, self.values))}"
            )
        return self

    @model_validator(mode="after")
    def _distinct_values(self) -> Self:
        for index, value in enumerate(self.values):
            if index_of(self.values, value) != index:
                raise ValueError(f"{shown(value)} stands twice among the values")
        return self

    @property
    def fallback(self) -> Value:
        """What `fit` uses."""
        return self.default if "default" in self.model_fields_set else self.values[0]


Space = Annotated[LogUniformSpace | UniformSpace | IntSpace | ChoiceSpace, Field(discriminator="search")]


def index_of(values: Iterable[Value], value: Value) -> int | None:
    """Return where a value stands; 1, 1.0 and true are equal in Python and mean different things in a recipe."""
    wanted = _as_text(value)
    return next((index for index, candidate in enumerate(values) if _as_text(candidate) == wanted), None)


def _as_text(value: Value) -> str:
    return json.dumps(value, sort_keys=True)


def _check_range(low: float, high: float, default: float | None) -> None:
    if low >= high:
        raise ValueError(f"low {low:g} is not below high {high:g}")
    if default is not None and not low <= default <= high:
        raise ValueError(f"default {default:g} is outside {low:g} to {high:g}")
