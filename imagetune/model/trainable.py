"""Trainable parameters: the named blocks of a backbone, and freezing and unfreezing them as ``unfreeze`` says."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import keras

from imagetune.core.text import suggest_name
from imagetune.errors import RecipeError
from imagetune.model.backbones.table import Backbone
from imagetune.recipe.unfreeze import Unfreeze, parse_unfreeze

WHERE = "unfreeze"
Adapt: TypeAlias = Literal["all", "norm", "bias"]
_NORMALISATIONS = (keras.layers.BatchNormalization, keras.layers.LayerNormalization, keras.layers.GroupNormalization)
_SHIFTS = ("bias", "beta")
# Dropout rates as the layers were built with; the layers are silenced while their block is frozen.
_built_rates: WeakKeyDictionary[keras.layers.Layer, float] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class LayerBlock:
    """A block of a backbone: consecutive layers under one name.

    Attributes:
        name: Name in ``unfreeze``.
        layers: Names of its layers with weights, from input to output.
        parameters: Number of the parameters in these layers.
    """

    name: str
    layers: tuple[str, ...]
    parameters: int


@dataclass(frozen=True, slots=True)
class BlockState:
    """The trainable and frozen parameters of a block.

    Attributes:
        name: Name of the block.
        layers: Names of its trainable layers.
        trainable_parameters: Number of its trainable parameters.
        parameters: Number of all its parameters.
    """

    name: str
    layers: tuple[str, ...]
    trainable_parameters: int
    parameters: int


@dataclass(frozen=True, slots=True)
class TrainableSummary:
    """The trainable and frozen parameters of a model in a stage.

    Attributes:
        blocks: State of the backbone's blocks, from input to output.
        trainable_parameters: Number of trainable parameters of the whole model, head included.
        frozen_parameters: Number of all other parameters, statistics of BatchNorm included.
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


def list_leaf_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the layers of a model from input to output, those of nested models in their place."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from list_leaf_layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def list_blocks(model: keras.Model, backbone: Backbone) -> tuple[LayerBlock, ...]:
    """Return the named blocks of a backbone, from input to output.

    Args:
        model: A model made by ``build_model``, or a backbone made by ``build_backbone``.
        backbone: Its row in the table.
    """
    return tuple(
        LayerBlock(block.name, tuple(layer.name for layer in block.weighted), _count_parameters(block.weighted))
        for block in _build_blocks(model, backbone)
    )


def list_block_outputs(model: keras.Model, backbone: Backbone) -> Iterator[tuple[str, tuple[str, ...], Any]]:
    """Yield (name, names of its layers, output tensor) of each block, from input to output.

    Args:
        model: A model made by ``build_model``, or a backbone made by ``build_backbone``.
        backbone: Its row in the table.
    """
    block_of = {layer.name: name for name, layers in _group_layers(model, backbone).items() for layer in layers}
    ends: dict[str, Any] = {}
    current = ""
    # A sum of tensors is an operation, not a layer; it belongs to the block that it ends.
    for operation in _find_network(model, backbone).operations:
        current = block_of.get(operation.name, current)
        ends[current] = operation.output
    for block in _build_blocks(model, backbone):
        yield block.name, tuple(layer.name for layer in block.layers), ends[block.name]


def set_trainable(
    model: keras.Model,
    backbone: Backbone,
    unfreeze: str | tuple[str, ...],
    *,
    batch_norm: Literal["frozen", "train"],
    freeze_head: bool = False,
    adapt: Adapt = "all",
) -> TrainableSummary:
    """Set the layers named by ``unfreeze``, and the head, trainable and freeze all others; return what is trainable.

    Compile the model again afterwards, with a new optimizer: Keras keeps the old choice until then. BatchNorm layers
    are frozen one by one, because calling the backbone with ``training=False`` doesn't stop their statistics once it
    is unfrozen. Dropout inside frozen blocks is silenced, so that a frozen backbone gives the same features every
    epoch.

    Args:
        model: A model made by ``build_model``, or a backbone made by ``build_backbone``.
        backbone: Its row in the table.
        unfreeze: Trainable part of the backbone, as in a stage of the recipe.
        batch_norm: ``train`` makes the BatchNorm layers of unfrozen blocks trainable too.
        freeze_head: Whether the head stays frozen.
        adapt: Which parameters of the unfrozen layers are trained.

    Raises:
        RecipeError: A name matches nothing, there are fewer blocks than asked for, or ``adapt`` leaves nothing.
    """
    chosen = find_unfrozen_layers(model, backbone, unfreeze)
    network = _find_network(model, backbone)
    # Setting it on a model sets it on every layer inside, so this comes first.
    network.trainable = bool(chosen)
    for layer in model.layers:
        if model is not network and layer is not network:
            layer.trainable = not freeze_head
    blocks = _build_blocks(model, backbone)
    for block in blocks:
        for layer in block.layers:
            frozen = isinstance(layer, keras.layers.BatchNormalization) and batch_norm == "frozen"
            # Only a change reaches the layer's variables, of which an earlier stage may have frozen some.
            layer.trainable = False
            layer.trainable = layer.name in chosen and not frozen
        _silence_dropout(block, silent=not any(layer.name in chosen for layer in block.layers))
    if adapt != "all" and chosen:
        _keep_adapted([layer for block in blocks for layer in block.layers], adapt, batch_norm)
    return _summarise(model, blocks)


def _keep_adapted(layers: Sequence[keras.layers.Layer], adapt: Adapt, batch_norm: str) -> None:
    """Freeze what ``adapt`` leaves out, variable by variable.

    Setting ``trainable`` of a layer sets it on all its variables, so that the next stage begins anew.
    """
    for layer in layers:
        for weight in layer.trainable_weights:
            shift = len(weight.shape) <= 1 and weight.name in _SHIFTS
            weight.trainable = shift if adapt == "bias" else isinstance(layer, _NORMALISATIONS)
    if not any(layer.trainable_weights for layer in layers):
        frozen = batch_norm == "frozen" and any(isinstance(one, keras.layers.BatchNormalization) for one in layers)
        hint = (
            "set batch_norm: train, as BatchNorm stays frozen otherwise" if frozen else "unfreeze more, or adapt: all"
        )
        raise RecipeError(f"adapt: {adapt} leaves nothing of the unfrozen layers to train", where="adapt", hint=hint)


def find_trainable_positions(model: keras.Model) -> frozenset[int]:
    """Return the positions among the model's weights that training may change, BatchNorm statistics included."""
    changing = {id(weight) for layer in list_leaf_layers(model) if layer.trainable for weight in layer.weights}
    return frozenset(position for position, weight in enumerate(model.weights) if id(weight) in changing)


def find_unfrozen_layers(model: keras.Model, backbone: Backbone, unfreeze: str | tuple[str, ...]) -> frozenset[str]:
    """Return the names of the backbone's layers that ``unfreeze`` names, BatchNorm included.

    Raises:
        RecipeError: A name matches nothing, or there are fewer blocks than asked for.
    """
    try:
        wanted = parse_unfreeze(unfreeze)
    except ValueError as error:
        raise RecipeError(str(error), where=WHERE) from error
    return frozenset(_resolve_layers(wanted, list_blocks(model, backbone), backbone))


def _resolve_layers(wanted: Unfreeze, blocks: Sequence[LayerBlock], backbone: Backbone) -> list[str]:
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
        # Rounded up: a small share of a small network still trains a layer.
        return layers[-math.ceil(wanted.last_fraction * len(layers)) :]
    return [name for pattern in wanted.names for name in _match_names(pattern, blocks, backbone)]


def _match_names(pattern: str, blocks: Sequence[LayerBlock], backbone: Backbone) -> list[str]:
    """Return the names of the layers in blocks, or else of the single layers, that match a shell pattern."""
    of_blocks = [name for block in blocks if fnmatch.fnmatchcase(block.name, pattern) for name in block.layers]
    found = of_blocks or [name for block in blocks for name in block.layers if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        names = [block.name for block in blocks]
        guess = suggest_name(pattern, [*names, *(n for block in blocks for n in block.layers)])
        what = f"{backbone.name} has no block or layer {pattern!r} (blocks: {', '.join(names)})"
        raise RecipeError(what, where=WHERE, hint=f"{guess} see `imagetune model layers {backbone.name}`".strip())
    return found


def _find_network(model: keras.Model, backbone: Backbone) -> keras.Model:
    return model if model.name == backbone.name else model.get_layer(backbone.name)


def _build_blocks(model: keras.Model, backbone: Backbone) -> list[_Block]:
    return [
        _Block(
            name,
            tuple(
                inside
                for layer in layers
                for inside in (list_leaf_layers(layer) if isinstance(layer, keras.Model) else [layer])
            ),
        )
        for name, layers in _group_layers(model, backbone).items()
    ]


def _group_layers(model: keras.Model, backbone: Backbone) -> dict[str, list[keras.layers.Layer]]:
    """Return the layers at the top of the backbone by block; nested models count as one layer."""
    layers = [
        layer for layer in _find_network(model, backbone).layers if not isinstance(layer, keras.layers.InputLayer)
    ]
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


def _summarise(model: keras.Model, blocks: Sequence[_Block]) -> TrainableSummary:
    states = []
    for block in blocks:
        trainable_layers = [layer for layer in block.weighted if layer.trainable]
        trained = sum(_count_values(weight) for layer in trainable_layers for weight in layer.trainable_weights)
        states.append(
            BlockState(
                block.name, tuple(layer.name for layer in trainable_layers), trained, _count_parameters(block.weighted)
            )
        )
    trainable = sum(_count_values(weight) for weight in model.trainable_weights)
    return TrainableSummary(tuple(states), trainable, model.count_params() - trainable)


def _count_parameters(layers: Sequence[keras.layers.Layer]) -> int:
    return sum(_count_values(weight) for layer in layers for weight in layer.weights)


def _count_values(weight: keras.Variable) -> int:
    return math.prod(weight.shape)
