"""The recipe: all sections, and the keys at its top."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imagetune.recipe.sections.base import Section
from imagetune.recipe.sections.card import CardConfig
from imagetune.recipe.sections.data import DataConfig
from imagetune.recipe.sections.evaluate import EvaluateConfig
from imagetune.recipe.sections.model import ModelConfig
from imagetune.recipe.sections.search import SearchConfig
from imagetune.recipe.sections.tracking import TrackingConfig
from imagetune.recipe.sections.train import TrainConfig


class Recipe(Section):
    """A recipe: everything that decides a run."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)] = "run"
    """Name of the recipe's runs, of letters, digits, `.`, `_` and `-`; by default the file's name."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Random seed of splits, shuffling, augmentation, new weights and dropout; the same seed gives the same run.

    Another seed is another repetition of all of it, also with other test images; with `data.split.seed` they stay.
    """
    data: DataConfig
    """Where images come from, how they are split, and how they are prepared."""
    model: ModelConfig = ModelConfig()
    """Which network is fine-tuned, and from which weights."""
    train: TrainConfig = Field(default_factory=TrainConfig)
    """How the network is trained: stages, optimizer, loss and early stopping."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What the final test measures, and what it must reach."""
    tracking: TrackingConfig = TrackingConfig()
    """Where a copy of the run is tracked, such as in MLflow."""
    card: CardConfig = CardConfig()
    """Statements for the model card that only people can make."""
    search: SearchConfig = SearchConfig()
    """How `imagetune search` explores the spaces of this recipe."""

    @property
    def split_seed(self) -> int:
        """Seed of the splits and folds: that of ``data.split``, else the recipe's."""
        return self.seed if self.data.split.seed is None else self.data.split.seed

    @property
    def evaluation_batch_size(self) -> int:
        """Images that go through the model at a time where it only predictions.

        Raises:
            ValueError: The batch size is still `auto`.
        """
        return self.evaluate.batch_size or self.train.pass_size
