"""A run to be evaluated, made of a whole recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imagetune.evaluation.context import EvaluatedSplit, EvaluationContext
from imagetune.recipe.schema import Recipe
from imagetune.reports.tiles import RunTiles


def examined_of(
    model: Any, recipe: Recipe, splits: Mapping[str, EvaluatedSplit], root: Path, folder: Path
) -> EvaluationContext:
    """Return what `deep_document` looks at, as a test after training makes it of the recipe."""
    return EvaluationContext(
        model=model,
        data=recipe.data,
        evaluate=recipe.evaluate,
        seed=recipe.seed,
        batch_size=recipe.evaluate.batch_size or recipe.train.pass_size,
        backbone=recipe.model.backbone,
        fine_tuned=recipe.train.trains_backbone,
        splits=splits,
        root=root,
        folder=folder,
        tiles=RunTiles(folder),
    )
