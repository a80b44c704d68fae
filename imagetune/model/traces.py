"""What TensorFlow keeps of the graphs that it traced."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# The names that tf.custom_gradient gives.
_PREFIX = "CustomGradient-"


@contextmanager
def graphs_freed() -> Iterator[None]:
    """Let the graphs that are traced in the block be freed with their model.

    TensorFlow enters each ``tf.custom_gradient`` of a traced graph in a list of the process and never takes it out
    again; the entry holds the graph, and the graph the weights. Two kinds are common: the sum of gradients over devices
    in every step of a Keras optimizer, and ``silu``. So every training leaves a model behind: fold after fold, stage
    after stage. The entries serve only gradients of a finished graph, which nothing here takes. Those from before the
    block stay. Other backends have no such list.
    """
    before = set(_gradients())
    try:
        yield
    finally:
        gradients = _gradients()
        for name in [name for name in gradients if name.startswith(_PREFIX) and name not in before]:
            del gradients[name]


def _gradients() -> dict[str, Any]:
    """Return TensorFlow's list of gradient functions by name; empty where it is not in use."""
    # Not public. Where it moved, memory grows as it did before, and the test of this module tells.
    operations = sys.modules.get("tensorflow.python.framework.ops")
    registry = getattr(operations, "gradient_registry", None)
    gradients: dict[str, Any] = getattr(registry, "_registry", {})
    return gradients
