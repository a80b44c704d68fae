"""Weight penalties on the backbone: L1 and L2 keep weights small, L2-SP keeps them near the pretrained ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from imagetune.recipe.sections.learning import RegularisationConfig

PretrainedWeights = Sequence[np.ndarray]


class WeightPenalty(keras.regularizers.Regularizer):
    """The penalty ``l1 * sum|w| + l2 * sum w^2 + l2_sp * sum (w - w0)^2`` on a variable w.

    Args:
        config: Strengths of the three penalties.
        anchor: Pretrained value w0, of the variable's shape; None without L2-SP.
    """

    def __init__(self, config: RegularisationConfig, anchor: keras.Variable | None) -> None:
        self.config = config
        self.anchor = anchor

    def __call__(self, weights: Any) -> Any:
        """Return the penalty, a float32 scalar."""
        # Sums of squares would overflow in half precision.
        weights = keras.ops.cast(weights, "float32")
        total = self.config.l1 * keras.ops.sum(keras.ops.absolute(weights))
        total += self.config.l2 * keras.ops.sum(keras.ops.square(weights))
        if self.anchor is not None:
            total += self.config.l2_sp * keras.ops.sum(keras.ops.square(weights - self.anchor))
        return total


def copy_pretrained_weights(network: keras.Model, config: RegularisationConfig) -> PretrainedWeights:
    """Return copies of the backbone's weights in order, for L2-SP (Li et al. 2018, arXiv 1802.01483); else nothing."""
    if not config.l2_sp:
        return ()
    return [keras.ops.convert_to_numpy(variable).copy() for variable in network.weights]


def set_penalties(network: keras.Model, config: RegularisationConfig, anchors: PretrainedWeights) -> None:
    """Put the penalties on the backbone's trainable variables, and remove them from the frozen ones.

    L1 and L2 penalise kernels only; L2-SP also penalises biases and scales, as published.

    Args:
        network: The backbone, with its layers already set trainable or frozen.
        config: Strengths of the penalties.
        anchors: Pretrained weights from ``copy_pretrained_weights``.
    """
    for variable in network.weights:
        # On variables and not in the layers' settings, which the saved model would keep.
        variable.regularizer = None
    place = {id(variable): index for index, variable in enumerate(network.weights)}
    for variable in _list_penalised(network.trainable_variables, config):
        anchor = None
        if config.l2_sp:
            anchor = keras.Variable(anchors[place[id(variable)]], trainable=False, dtype="float32")
        kernels = config if len(variable.shape) > 1 else config.model_copy(update={"l1": 0.0, "l2": 0.0})
        variable.regularizer = WeightPenalty(kernels, anchor)


def _list_penalised(variables: Iterable[keras.Variable], config: RegularisationConfig) -> list[keras.Variable]:
    if config.l2_sp:
        return list(variables)
    return [variable for variable in variables if len(variable.shape) > 1] if config.l1 or config.l2 else []
