"""Weight averaging: EMA and SWA, swapped in for validation and checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.recipe.sections.learning import AverageConfig


class KeptWeights:
    """Averages weights, and swaps the averages in for validation and checkpoints.

    EMA (Polyak and Juditsky 1992) is updated by the optimizer in every step; SWA (Izmailov et al. 2018,
    arXiv 1803.05407) is the mean over the ends of the last epochs, summed up here.

    Args:
        learner: The compiled model that is being trained.
        kept: The model that is validated and saved: it shares its layers with the learner, or has the same layers for
            another image size and gets copies of its weights.
        trained: The model that the learner belongs to, with the same weights as ``kept`` in the same order.
        config: Kind of averaging.
        epochs: Number of epochs of the stage.
        learned: Positions of the weights that may have changed since training began.
        refresh: Re-estimates BatchNorm's statistics after averaging; None where they stay frozen.
    """

    def __init__(
        self,
        learner: keras.Model,
        *,
        kept: keras.Model,
        trained: keras.Model,
        config: AverageConfig,
        epochs: int,
        learned: frozenset[int] = frozenset(),
        refresh: Callable[[keras.Model], object] | None = None,
    ) -> None:
        self.learner = learner
        self.kept = kept
        self.trained = trained
        self.config = config
        self.learned = learned
        self.refresh = refresh
        # Counted from 1, like all numbers of epochs.
        self._first_averaged = epochs - round(epochs * config.last_fraction) + 1
        self._sum: list[np.ndarray] = []
        self._count = 0

    def add_epoch(self, epoch: int) -> None:
        """Add the weights at the end of an epoch of the stage, counted from 1, to the average of SWA."""
        if self.config.name != "swa" or epoch < self._first_averaged:
            return
        # Float64: sums of many epochs would lose the small weights' last bits.
        weights = [weight.astype(np.float64) for weight in self.trained.get_weights()]
        self._sum = [a + b for a, b in zip(self._sum, weights, strict=True)] if self._sum else weights
        self._count += 1

    @property
    def averaged_epochs(self) -> int:
        """Number of epochs in the average of SWA."""
        return self._count

    def collect_arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that resuming needs beside the kept weights: the learned weights, and the sum of SWA."""
        if self.config.name == "none":
            return {}
        learned = enumerate(self.trained.get_weights())
        own = {f"own/{position}": np.array(weight) for position, weight in learned if position in self.learned}
        return own | {f"sum/{position}": total for position, total in enumerate(self._sum) if position in self.learned}

    def restore_arrays(self, arrays: Mapping[str, NDArray[Any]], averaged_epochs: int) -> None:
        """Restore the arrays that `collect_arrays` returned.

        Args:
            arrays: Arrays by name; other names are ignored.
            averaged_epochs: Number of epochs in the average of SWA at that time.
        """
        for position, weight in enumerate(self.trained.weights):
            if f"own/{position}" in arrays:
                weight.assign(arrays[f"own/{position}"])
        self._count = averaged_epochs
        if averaged_epochs:
            # Frozen weights have added up to a multiple of themselves, which float64 holds exactly.
            sums = (weight.astype(np.float64) * averaged_epochs for weight in self.trained.get_weights())
            self._sum = [arrays.get(f"sum/{position}", total) for position, total in enumerate(sums)]

    @contextmanager
    def swap_in(self) -> Iterator[None]:
        """Put the averaged weights into the kept model during the block; the learner has its own again afterwards."""
        if keras.backend.backend() == "jax":  # during an epoch its state lives outside the variables
            self.learner.jax_state_sync()
        learned = self._assign_average()
        if self.kept is not self.trained:
            self.kept.set_weights(self.trained.get_weights())
        try:
            yield
        finally:
            if learned is not None:
                self.trained.set_weights(learned)

    def _assign_average(self) -> list[np.ndarray] | None:
        """Put averaged weights into the trained model; return those that it had, None where nothing is averaged."""
        ema = self.config.name == "ema" and self.learner.optimizer.built
        if not ema and not self._count:
            return None
        learned = [weight.copy() for weight in self.trained.get_weights()]
        if ema:
            self.learner.optimizer.finalize_variable_values(self.learner.trainable_variables)
            # On JAX the averages would now share their buffers with the weights, and validation gives those away.
            self.trained.set_weights([weight.copy() for weight in self.trained.get_weights()])
        else:
            mean = zip(self._sum, learned, strict=True)
            self.trained.set_weights([(total / self._count).astype(own.dtype) for total, own in mean])
        if self.refresh is not None:
            self.refresh(self.trained)
        return learned
