"""Decision rules in a manifest, chosen on validation: conformal prediction sets and the operating point."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from imagetune.recipe.sections.base import Fraction, NonNegative, Section

ConformalMethod = Literal["least_ambiguous", "risk_control", "absolute_residual"]


class ConformalRule(Section):
    """Conformal prediction: how a prediction set is made that holds the true class with a stated probability."""

    method: ConformalMethod
    """How the set is made. `least_ambiguous`: the classes whose probability reaches the threshold; `risk_control`: the
    labels that do; `absolute_residual`: the numbers within the threshold of the predicted one."""
    coverage: Annotated[float, Field(gt=0.5, lt=1.0)]
    """Stated probability, between 0.5 and 1; for risk_control the share of an image's labels that are to be found."""
    threshold: NonNegative | None
    """Threshold of the method; None where validation had too few images for any set but that of all classes."""


class OperatingPoint(Section):
    """The operating point: the probability from which on the class of interest is predicted."""

    positive: str
    """Name of the class of interest."""
    threshold: Fraction
    """Least probability, as the model outputs it, at which the class is predicted; 0 to 1."""
