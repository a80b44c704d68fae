"""The whole recipe."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from imagetune.recipe.base import Section
from imagetune.recipe.card import CardConfig
from imagetune.recipe.data import DataConfig
from imagetune.recipe.evaluate import EvaluateConfig
from imagetune.recipe.model import ModelConfig
from imagetune.recipe.search import SearchConfig
from imagetune.recipe.tracking import TrackingConfig
from imagetune.recipe.train import TrainConfig


class Recipe(Section):
    """Everything that decides a run."""

    name: Annotated[str, Field(pattern=r"^[\w.-]+$", max_length=100)] = "run"
    """Name of the runs of this recipe; by default the file's name."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """Seed of splits, shuffling, augmentation, new weights and dropout; the same seed gives the same run."""
    data: DataConfig
    """Where images come from and how they are prepared."""
    model: ModelConfig = ModelConfig()
    """Which network is fine-tuned."""
    train: TrainConfig = Field(default_factory=TrainConfig)
    """How it is trained."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """What the final test measures and must reach."""
    tracking: TrackingConfig = TrackingConfig()
    """Where MLflow gets its copy."""
    card: CardConfig = CardConfig()
    """What people know of the model, for its card."""
    search: SearchConfig = SearchConfig()
    """How `imagetune search` explores the spaces of this recipe."""

    @property
    def split_seed(self) -> int:
        """Seed of the splits and of folds: which image is for what."""
        return self.seed if self.data.split.seed is None else self.data.split.seed

    @property
    def evaluation_batch_size(self) -> int:
        """Images that go through the model at a time where it only predictions.

        Raises:
            ValueError: The batch size is still `auto`.
        """
        return self.evaluate.batch_size or self.train.pass_size
