"""Freeing of traced TensorFlow graphs, which a registry of the process would keep for ever."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Prefix of the names that tf.custom_gradient registers.
_PREFIX = "CustomGradient-"


@contextmanager
def free_graphs() -> Iterator[None]:
    """Let graphs that are traced in the block be freed together with their model.

    TensorFlow enters each ``tf.custom_gradient`` of a traced graph in a registry of the process and never removes it;
    the entry holds the graph, and the graph the weights. Two kinds are common: the sum of gradients over devices
    in every step of a Keras optimizer, and ``silu``. So every training leaves a model behind: fold after fold, stage
    after stage. The entries serve only gradients of a finished graph, which nothing here takes. Those from before the
    block stay. Other backends have no such registry.
    """
    before = set(_find_registry())
    try:
        yield
    finally:
        gradients = _find_registry()
        for name in [name for name in gradients if name.startswith(_PREFIX) and name not in before]:
            del gradients[name]


def _find_registry() -> dict[str, Any]:
    """Return TensorFlow's registry of gradient functions by name; empty where TensorFlow is not in use."""
    # Not public. If it moves, memory grows again, and the test of this module fails.
    # Looked up and not imported, because other backends do without TensorFlow.
    operations = sys.modules.get("tensorflow.python.framework.ops")
    registry = getattr(operations, "gradient_registry", None)
    gradients: dict[str, Any] = getattr(registry, "_registry", {})
    return gradients
