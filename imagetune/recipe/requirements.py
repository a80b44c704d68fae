"""Requirements on test metrics, parsed from the command line (``--require METRIC:lower_bound=0.85``)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from imagetune.errors import RecipeError
from imagetune.recipe.metrics import TEST_METRICS
from imagetune.recipe.sections.evaluate import EvaluateConfig, Requirement

_KINDS = ("lower_bound", "upper_bound", "value")
_EXPECTED = "write METRIC:lower_bound=0.85 or METRIC:value=0.85; where lower is better, mae:upper_bound=5"


def parse_requirement(text: str) -> Requirement:
    """Return the requirement in a text such as ``balanced_accuracy:lower_bound=0.85``.

    Raises:
        RecipeError: The metric is unknown, the number is missing, or the kind of threshold doesn't fit the metric.
    """
    metric, _, requirement = text.partition(":")
    kind, _, number = requirement.partition("=")
    if metric not in TEST_METRICS:
        raise RecipeError(
            f"unknown metric {metric!r}; the metrics are {', '.join(TEST_METRICS)}", where="--require", hint=_EXPECTED
        )
    if kind not in _KINDS:
        raise RecipeError(f"{text!r} names no threshold", where="--require", hint=_EXPECTED)
    try:
        return Requirement.model_validate({"metric": metric, kind: float(number)})
    # First, as a ValidationError is a ValueError too.
    except ValidationError as error:
        # pydantic puts these words before the text of our own error.
        what = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise RecipeError(what, where=f"--require {text}") from None
    except ValueError:
        raise RecipeError(f"{number!r} is not a number", where=f"--require {text}", hint=_EXPECTED) from None


def add_requirements(config: EvaluateConfig, require: Sequence[Requirement]) -> EvaluateConfig:
    """Return the ``evaluate`` section with requirements added to its own."""
    return config.model_copy(update={"require": (*config.require, *require)})
