"""Access to the test split (holdout), which only this module gives.

``model``, ``training`` and ``search`` may not import this module, so no test image can influence model selection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imagetune.data.sources.records import Record
    from imagetune.data.splits.splits import Splits


def open_holdout(splits: Splits) -> tuple[Record, ...]:
    """Return the test records; call it once, after all choices are made."""
    return splits._sealed_test
