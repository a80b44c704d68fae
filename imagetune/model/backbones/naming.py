"""Stable layer names, which don't depend on how many models a process has built."""

from __future__ import annotations

import re
from typing import Any

import keras


def derive_layer_name(layer: keras.layers.Layer) -> str:
    """Return the automatic name that Keras derives from a layer's class, such as max_pooling2d of MaxPooling2D."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def renumber_layers(model: keras.Model) -> keras.Model:
    """Return a model with the automatic layer names of a fresh process: conv2d, conv2d_1, ...

    Keras counts names through the whole process, while blocks, patterns in ``unfreeze`` and saved files need stable
    ones. A model with automatic names is always rebuilt, so that a seed gives the same weights whatever was built
    before.
    """
    automatic = [layer for layer in model.layers if _is_automatic(layer)]
    if not any(layer.weights for layer in automatic):
        return model
    return keras.Model.from_config(_rename_layers(model.get_config(), _number_names(automatic)))


def _is_automatic(layer: keras.layers.Layer) -> bool:
    return re.fullmatch(rf"{derive_layer_name(layer)}(_\d+)?", layer.name) is not None


def _number_names(layers: list[keras.layers.Layer]) -> dict[str, str]:
    """Return the new names by old name, numbered within a class in the order of creation."""
    names: dict[str, str] = {}
    for stem in dict.fromkeys(map(derive_layer_name, layers)):
        numbered = sorted(
            (int(layer.name[len(stem) + 1 :] or 0), layer.name) for layer in layers if derive_layer_name(layer) == stem
        )
        names |= {old: f"{stem}_{rank}" if rank else stem for rank, (_, old) in enumerate(numbered)}
    return names


def _rename_layers(config: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Return a functional model's configuration with its layers renamed."""
    for layer in config["layers"]:
        layer["name"] = layer["config"]["name"] = names.get(layer["name"], layer["name"])
        layer["inbound_nodes"] = _rename_references(layer["inbound_nodes"], names)
    for end in ("input_layers", "output_layers"):
        config[end] = _rename_references({"keras_history": config[end]}, names)["keras_history"]
    return config


def _rename_references(value: Any, names: dict[str, str]) -> Any:
    """Return a value with the names replaced in every ``keras_history: [layer name, node, tensor]`` inside it."""
    if isinstance(value, dict):
        return {
            key: [names.get(item[0], item[0]), *item[1:]] if key == "keras_history" else _rename_references(item, names)
            for key, item in value.items()
        }
    return [_rename_references(item, names) for item in value] if isinstance(value, (list, tuple)) else value
