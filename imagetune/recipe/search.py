"""The ``search`` section, and the spaces that any scalar of a recipe may be replaced by."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from imagetune.recipe.base import PositiveInt, Section, Sequence

Scalar = str | bool | int | float | None


class SearchConfig(Section):
    """How `imagetune search` explores the spaces of the recipe."""

    algorithm: Literal["random", "grid", "bayesian", "hyperband"] = "bayesian"
    """KerasTuner's oracle that proposes the trials."""
    objective: Literal["loss", "accuracy", "precision", "recall", "f1", "mae", "r2"] = "f1"
    """Validation figure to optimise; the best epoch of a trial counts."""
    trials: PositiveInt = 20
    """Most trials to run; hyperband decides itself."""
    max_epochs: PositiveInt = 12
    """Hyperband: epochs of its longest trials."""
    factor: Annotated[int, Field(ge=2)] = 3
    """Hyperband: how many trials drop out at each rung."""


class LogUniformSpace(Section):
    """Numbers whose logarithm is uniform between low and high."""

    search: Literal["log_uniform"]
    low: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    high: Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
    default: float | None = None
    """What `fit` uses; by default the geometric middle."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        return self

    @property
    def fallback(self) -> float:
        return math.sqrt(self.low * self.high) if self.default is None else self.default


class UniformSpace(Section):
    """Numbers uniform between low and high."""

    search: Literal["uniform"]
    low: Annotated[float, Field(allow_inf_nan=False)]
    high: Annotated[float, Field(allow_inf_nan=False)]
    default: float | None = None
    """What `fit` uses; by default the middle."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        return self

    @property
    def fallback(self) -> float:
        return (self.low + self.high) / 2 if self.default is None else self.default


class IntSpace(Section):
    """Whole numbers from low to high, both included."""

    search: Literal["int"]
    low: int
    high: int
    step: PositiveInt = 1
    default: int | None = None
    """What `fit` uses; by default the lowest."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        _check_range(self.low, self.high, self.default)
        return self

    @property
    def fallback(self) -> int:
        return self.low if self.default is None else self.default


class ChoiceSpace(Section):
    """One of several values."""

    search: Literal["choice"]
    values: Annotated[Sequence[Scalar], Field(min_length=1)]
    default: Scalar = None
    """What `fit` uses; by default the first."""

    @model_validator(mode="after")
    def _default_is_a_value(self) -> Self:
        if "default" in self.model_fields_set and self.default not in self.values:
            raise ValueError(f"default {self.default!r} is not among the values {list(self.values)}")
        return self

    @property
    def fallback(self) -> Scalar:
        return self.default if "default" in self.model_fields_set else self.values[0]


Space = Annotated[LogUniformSpace | UniformSpace | IntSpace | ChoiceSpace, Field(discriminator="search")]


def _check_range(low: float, high: float, default: float | None) -> None:
    if low >= high:
        raise ValueError(f"low {low:g} is not below high {high:g}")
    if default is not None and not low <= default <= high:
        raise ValueError(f"default {default:g} is outside {low:g} to {high:g}")
