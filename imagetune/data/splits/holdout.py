"""The one door to the test split.

``model``, ``training`` and ``search`` may not import this module: no test image can reach the selection of a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagetune.data.sources.records import Record
    from imagetune.data.splits.splits import Splits


def open_holdout(splits: Splits) -> tuple[Record, ...]:
    """Return the test records; to be called once, after all choices are made."""
    return splits._sealed_test
