"""Base class and field types of all recipe sections."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field

Item = TypeVar("Item")

# YAML has lists, frozen sections want tuples: the one conversion that strict mode would refuse.
Sequence = Annotated[tuple[Item, ...], Field(strict=False)]

# Every number has an upper limit far above what anybody wants, so that a slip of the keyboard is found here, and not by
# a full memory or a run without end. A key with a lower one says so in its section.
LARGEST = 1_000_000_000

Finite = Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0.0, le=LARGEST, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0.0, le=LARGEST, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(ge=1, le=LARGEST)]

Epochs = Annotated[int, Field(ge=1, le=100_000)]
Patience = Annotated[int, Field(ge=0, le=100_000)]
BatchSize = Annotated[int, Field(ge=1, le=65_536)]
AugmentedCopies = Annotated[int, Field(ge=1, le=1_000)]


class Section(BaseModel):
    """Base of a recipe's sections: frozen and strict pydantic models that refuse unknown keys.

    Attribute docstrings become the descriptions in ``imagetune recipe schema``.
    """

    # Strict, as YAML scalars have their types already: a quoted "8" is text and no number.
    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True
    )
