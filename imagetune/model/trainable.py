"""Which part of the backbone learns: blocks, and what an ``unfreeze`` value makes of them."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import keras

from imagetune.core.text import suggest_name
from imagetune.errors import RecipeError
from imagetune.model.backbones.table import Backbone
from imagetune.recipe.unfreeze import Unfreeze, parse_unfreeze

WHERE = "unfreeze"
# Rates of the dropout layers as they were built; they are silent while their block is frozen.
_built_rates: WeakKeyDictionary[keras.layers.Layer, float] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class LayerBlock:
    """A named run of layers of a backbone.

    Attributes:
        name: Name in ``unfreeze``.
        layers: Names of its layers with weights, from input to output.
        parameters: Number of their parameters.
    """

    name: str
    layers: tuple[str, ...]
    parameters: int


@dataclass(frozen=True, slots=True)
class BlockState:
    """What of a block learns.

    Attributes:
        name: The block.
        layers: Names of the layers that learn.
        trainable_parameters: Number of parameters that gradients change.
        parameters: Number of all its parameters.
    """

    name: str
    layers: tuple[str, ...]
    trainable_parameters: int
    parameters: int


@dataclass(frozen=True, slots=True)
class TrainableSummary:
    """What a stage trains.

    Attributes:
        blocks: The backbone's blocks from input to output.
        trainable_parameters: Of the whole model, head included.
        frozen_parameters: The rest, statistics of BatchNorm included.
    """

    blocks: tuple[BlockState, ...]
    trainable_parameters: int
    frozen_parameters: int


@dataclass(frozen=True, slots=True)
class _Block:
    name: str
    layers: tuple[keras.layers.Layer, ...]

    @property
    def weighted(self) -> tuple[keras.layers.Layer, ...]:
        return tuple(layer for layer in self.layers if layer.weights)


def leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of ``model`` from input to output, those of nested models included."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from leaf_layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def blocks_of(model: keras.Model, backbone: Backbone) -> tuple[LayerBlock, ...]:
    """Return the named blocks of a backbone, from input to output.

    Args:
        model: A model made by ``build_model``, or a backbone made by ``build_backbone``.
        backbone: Its row in the table.
    """
    return tuple(
        LayerBlock(block.name, tuple(layer.name for layer in block.weighted), _count(block.weighted))
        for block in _blocks(model, backbone)
    )


def block_ends(model: keras.Model, backbone: Backbone) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield the blocks from input to output: name, names of the layers, and the Keras tensor that leaves it.

    Args:
        model: A model made by ``build_model``, or a backbone made by ``build_backbone``.
        backbone: Its row in the table.
    """
    block_of = {layer.name: name for name, layers in _top_layers(model, backbone).items() for layer in layers}
    ends: dict[str, Any] = {}
    current = ""
    # A sum of tensors is an operation and no layer; it belongs to the block that it closes.
    for operation in _network(model, backbone).operations:
        current = block_of.get(operation.name, current)
        ends[current] = operation.output
    for block in _blocks(model, backbone):
        yield block.name, tuple(layer.name for layer in block.layers), ends[block.name]


def set_trainable(
    model: keras.Model,
    backbone: Backbone,
    unfreeze: str | tuple[str, ...],
    *,
    batch_norm: Literal["frozen", "train"],
    freeze_head: bool = False,
) -> TrainableSummary:
    """Make the layers named by ``unfreeze`` and the head learn, and nothing else.

    Compile the model again afterwards, with a new optimizer: Keras keeps the old choice until then. BatchNorm layers
    are frozen one by one, because calling the backbone with ``training=False`` doesn't stop their statistics. Dropout
    inside frozen blocks is silenced, so that a frozen backbone gives the same features every epoch.

    Args:
        model: A model made by ``build_model``, or a backbone made by ``build_backbone``.
        backbone: Its row in the table.
        unfreeze: A value as in a stage of the recipe.
        batch_norm: ``train`` lets the BatchNorm layers of unfrozen blocks learn too.
        freeze_head: True keeps the head as it is.

    Raises:
        RecipeError: A name matches nothing, or there are fewer blocks than asked for.
    """
    chosen = chosen_layers(model, backbone, unfreeze)
    network = _network(model, backbone)
    # Setting it on a model sets it on every layer inside, so this comes first.
    network.trainable = bool(chosen)
    for layer in model.layers:
        if model is not network and layer is not network:
            layer.trainable = not freeze_head
    blocks = _blocks(model, backbone)
    for block in blocks:
        for layer in block.layers:
            still = isinstance(layer, keras.layers.BatchNormalization) and batch_norm == "frozen"
            layer.trainable = layer.name in chosen and not still
        _silence_dropout(block, silent=not any(layer.name in chosen for layer in block.layers))
    return _summary(model, blocks)


def learning_places(model: keras.Model) -> frozenset[int]:
    """Return the places among the model's weights of all that training may change, moving statistics included."""
    moving = {id(weight) for layer in leaf_layers(model) if layer.trainable for weight in layer.weights}
    return frozenset(place for place, weight in enumerate(model.weights) if id(weight) in moving)


def chosen_layers(model: keras.Model, backbone: Backbone, unfreeze: str | tuple[str, ...]) -> frozenset[str]:
    """Return the names of the backbone's layers that ``unfreeze`` means, BatchNorm included.

    Raises:
        RecipeError: A name matches nothing, or there are fewer blocks than asked for.
    """
    try:
        wanted = parse_unfreeze(unfreeze)
    except ValueError as error:
        raise RecipeError(str(error), where=WHERE) from error
    return frozenset(_resolve(wanted, blocks_of(model, backbone), backbone))


def _resolve(wanted: Unfreeze, blocks: Sequence[LayerBlock], backbone: Backbone) -> list[str]:
    layers = [name for block in blocks for name in block.layers]
    if wanted.everything:
        return layers
    if wanted.last_blocks:
        if wanted.last_blocks > len(blocks):
            names = ", ".join(block.name for block in blocks)
            what = f"last {wanted.last_blocks} blocks: {backbone.name} has {len(blocks)} ({names})"
            raise RecipeError(what, where=WHERE, hint="ask for fewer, or write `all`")
        return [name for block in blocks[-wanted.last_blocks :] for name in block.layers]
    if wanted.last_fraction:
        return layers[-math.ceil(wanted.last_fraction * len(layers)) :]
    return [name for pattern in wanted.names for name in _matching(pattern, blocks, backbone)]


def _matching(pattern: str, blocks: Sequence[LayerBlock], backbone: Backbone) -> list[str]:
    """Return the layers of the blocks, else the layers, whose name matches a shell pattern."""
    of_blocks = [name for block in blocks if fnmatch.fnmatchcase(block.name, pattern) for name in block.layers]
    found = of_blocks or [name for block in blocks for name in block.layers if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        names = [block.name for block in blocks]
        guess = suggest_name(pattern, [*names, *(n for block in blocks for n in block.layers)])
        what = f"{backbone.name} has no block or layer {pattern!r} (blocks: {', '.join(names)})"
        raise RecipeError(what, where=WHERE, hint=f"{guess} see `imagetune model layers {backbone.name}`".strip())
    return found


def _network(model: keras.Model, backbone: Backbone) -> keras.Model:
    return model if model.name == backbone.name else model.get_layer(backbone.name)


def _blocks(model: keras.Model, backbone: Backbone) -> list[_Block]:
    return [
        _Block(
            name,
            tuple(
                inside
                for layer in layers
                for inside in (leaf_layers(layer) if isinstance(layer, keras.Model) else [layer])
            ),
        )
        for name, layers in _top_layers(model, backbone).items()
    ]


def _top_layers(model: keras.Model, backbone: Backbone) -> dict[str, list[keras.layers.Layer]]:
    """Return the backbone's own layers by block, nested models whole."""
    layers = [layer for layer in _network(model, backbone).layers if not isinstance(layer, keras.layers.InputLayer)]
    names = backbone.scheme.assign([layer.name for layer in layers])
    members: dict[str, list[keras.layers.Layer]] = {}
    for layer, name in zip(layers, names, strict=True):
        members.setdefault(name, []).append(layer)
    return members


def _silence_dropout(block: _Block, *, silent: bool) -> None:
    for layer in block.layers:
        if isinstance(layer, keras.layers.Dropout):
            built = _built_rates.setdefault(layer, layer.rate)
            layer.rate = 0.0 if silent else built


def _summary(model: keras.Model, blocks: Sequence[_Block]) -> TrainableSummary:
    states = []
    for block in blocks:
        learning = [layer for layer in block.weighted if layer.trainable]
        trained = sum(_size(weight) for layer in learning for weight in layer.trainable_weights)
        states.append(BlockState(block.name, tuple(layer.name for layer in learning), trained, _count(block.weighted)))
    trainable = sum(_size(weight) for weight in model.trainable_weights)
    return TrainableSummary(tuple(states), trainable, model.count_params() - trainable)


def _count(layers: Sequence[keras.layers.Layer]) -> int:
    return sum(_size(weight) for layer in layers for weight in layer.weights)


def _size(weight: keras.Variable) -> int:
    return math.prod(weight.shape)
