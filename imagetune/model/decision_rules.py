"""What validation has settled about a model's predictions, kept in its manifest: plain numbers, applied elsewhere."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from imagetune.recipe.base import Fraction, NonNegative, Section

ConformalMethod = Literal["least_ambiguous", "risk_control", "absolute_residual"]


class ConformalRule(Section):
    """How a prediction set is made that holds the true one with a stated probability."""

    method: ConformalMethod
    """`least_ambiguous`: the classes whose probability reaches the threshold; `risk_control`: the labels that do;
    `absolute_residual`: the numbers within the threshold of the predicted one."""
    coverage: Annotated[float, Field(gt=0.5, lt=1.0)]
    """The stated probability; of risk_control the share of an image's labels that are to be found."""
    threshold: NonNegative | None
    """None where validation had too few images to vouch for any set but that of all predictions."""


class OperatingPoint(Section):
    """From which probability on the prediction is the class that matters."""

    positive: str
    """The class."""
    threshold: Fraction
    """Of its probability, as the model gives it."""
