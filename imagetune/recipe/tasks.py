"""The tasks: what a label of an image is."""

from __future__ import annotations

from typing import Literal

Task = Literal["single_label", "multi_label", "ordinal", "regression"]
"""One class an image; several labels an image; classes that have an order; a number."""
