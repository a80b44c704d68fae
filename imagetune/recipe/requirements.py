"""Bars that a test must reach, as they are written on the command line."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from imagetune.errors import RecipeError
from imagetune.recipe.evaluate import EvaluateConfig, Requirement
from imagetune.recipe.metrics import TEST_METRICS

_KINDS = ("lower_bound", "upper_bound", "value")
_EXPECTED = "write METRIC:lower_bound=0.85 or METRIC:value=0.85; where lower is better, mae:upper_bound=5"


def read_requirement(text: str) -> Requirement:
    """Return the requirement that a text such as ``balanced_accuracy:lower_bound=0.85`` names.

    Raises:
        RecipeError: It names no metric, or no number, or a requirement that is not for the metric.
    """
    metric, _, requirement = text.partition(":")
    kind, _, number = requirement.partition("=")
    if metric not in TEST_METRICS:
        raise RecipeError(f"{metric!r} is none of {', '.join(TEST_METRICS)}", where="--require", hint=_EXPECTED)
    if kind not in _KINDS:
        raise RecipeError(f"{text!r} doesn't say what to require", where="--require", hint=_EXPECTED)
    try:
        return Requirement.model_validate({"metric": metric, kind: float(number)})
    except ValidationError as error:
        what = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise RecipeError(what, where=f"--require {text}") from None
    except ValueError:
        raise RecipeError(f"{number!r} is no number", where=f"--require {text}", hint=_EXPECTED) from None


def with_requirements(config: EvaluateConfig, require: Sequence[Requirement]) -> EvaluateConfig:
    """Return the ``evaluate`` section with more requirements."""
    return config.model_copy(update={"require": (*config.require, *require)})
