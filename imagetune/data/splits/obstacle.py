"""Why the images of a source can't be split, found before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from imagetune.data.findings import CODES, Finding
from imagetune.data.splits.folds import build_cross_validation_folds
from imagetune.data.splits.splits import split_catalog
from imagetune.errors import DataError

if TYPE_CHECKING:
    from imagetune.data.audit.audit import Audit
    from imagetune.data.sources.catalog import Catalog
    from imagetune.recipe.sections.data import DataConfig


@dataclass(frozen=True)
class SplitPlan:
    """How a fit splits its images.

    Attributes:
        seed: The seed of the split.
        folds: ``evaluate.folds``.
        check: Raises a RecipeError for settings that don't fit the classes of the split.
    """

    seed: int = 0
    folds: int | None = None
    check: Callable[[Sequence[str]], None] = lambda _classes: None


def find_split_obstacle(catalog: Catalog, audit: Audit, config: DataConfig, plan: SplitPlan) -> Iterator[Finding]:
    """Yield why a fit would refuse to split the images, if it would; one that the audit stops doesn't come so far.

    Raises:
        RecipeError: From ``plan.check``.
    """
    if any(finding.severity == "error" for finding in audit.findings):
        return
    try:
        splits = split_catalog(catalog, audit, config, seed=plan.seed)
        plan.check(splits.class_names)
        if plan.folds is not None:
            build_cross_validation_folds(catalog, audit, splits, folds=plan.folds, seed=plan.seed)
    except DataError as error:
        yield Finding("no-split", CODES["no-split"].severity, error.what, "nothing can be trained", hint=error.hint)
