"""Matching of a backbone's layers with those of a weight file, by name and shape, by place, or by order.

A file may hold the backbone alone, nested in a larger model, or flat among other layers; Keras 3 may or may not have
kept the layers' names, and automatic names (``conv2d_94``) depend on what else its process had built.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import keras

from imagetune.errors import WeightsError
from imagetune.model.backbones.naming import derive_layer_name
from imagetune.model.trainable import list_leaf_layers
from imagetune.model.weights.h5_reader import StoredLayer, StoredWeights

SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Match:
    """A match between the layers of a backbone and those of a weight file.

    Attributes:
        found: Layer of the file by layer of the backbone.
        problems: Why the match isn't complete, one message for each layer.
        left: Layers of the file that the backbone doesn't have, such as a classifier or another branch.
    """

    found: Mapping[keras.layers.Layer, StoredLayer]
    problems: tuple[str, ...] = ()
    left: tuple[str, ...] = field(default=())


def match_layers(backbone: keras.Model, stored: StoredWeights) -> Match:
    """Return a complete match, by the layers' names or else by their places in the file.

    Raises:
        WeightsError: A layer is missing in the file, or has another shape there; the first few are listed.
    """
    targets = [layer for layer in list_leaf_layers(backbone) if layer.weights]
    by_name = _match_names(targets, stored.layers)
    match = by_name if not by_name.problems else _match_places(backbone, targets, stored.layers)
    if match is None or match.problems:
        raise WeightsError(_describe_problems(backbone, targets, by_name), hint="give a file of this backbone")
    used = {id(layer) for layer in match.found.values()}
    return Match(match.found, left=tuple(layer.label for layer in stored.layers if id(layer) not in used))


def match_in_order(backbone: keras.Model, stored: StoredWeights) -> Match | None:
    """Return a match by the order of layers, as Keras itself reads its published files; None without one.

    Layers at either end of the file that are not the backbone's, such as a built-in Normalization, are left out.
    """
    targets = [layer for layer in backbone.layers if layer.weights]
    wanted = [_list_shapes(layer) for layer in targets]
    present = [group.shapes for group in stored.groups]
    starts = [
        start for start in range(len(present) - len(wanted) + 1) if present[start : start + len(wanted)] == wanted
    ]
    # Several places that fit would leave the choice to chance.
    if len(starts) != 1:
        return None
    chosen = stored.groups[starts[0] : starts[0] + len(wanted)]
    left = tuple(group.label for group in stored.groups if group not in chosen)
    return Match(dict(zip(targets, chosen, strict=True)), left=left)


def assign(match: Match) -> None:
    """Assign every matched layer its weights from the file.

    Raises:
        ModelFileError: An array of the file is corrupted, or holds NaN or infinity.
    """
    for layer, stored in match.found.items():
        for weight, array in zip(layer.weights, stored.arrays, strict=True):
            weight.assign(array.read())


def _match_names(targets: Sequence[keras.layers.Layer], layers: Iterable[StoredLayer]) -> Match:
    candidates: dict[str, list[StoredLayer]] = defaultdict(list)
    for layer, name in _renumber_names(layers, {derive_layer_name(target) for target in targets}):
        candidates[name].append(layer)
    # A name that occurs twice (two backbones in one file) is taken from the model with most of the layers looked for.
    fits: Counter[tuple[str, ...]] = Counter(
        layer.path[:-1]
        for target in targets
        for layer in candidates[target.name]
        if layer.shapes == _list_shapes(target)
    )
    found, problems = {}, []
    for target in targets:
        wanted = _list_shapes(target)
        ranked = sorted(candidates[target.name], key=lambda layer: fits[layer.path[:-1]])
        fitting = [layer for layer in ranked if layer.shapes == wanted]
        if fitting:
            found[target] = fitting[-1]
        elif ranked:
            problems.append(
                f"{target.name}: {_format_shapes(ranked[-1].shapes)} in the file, {_format_shapes(wanted)} needed"
            )
        else:
            problems.append(f"{target.name}: not in the file")
    return Match(found, tuple(problems))


def _renumber_names(layers: Iterable[StoredLayer], stems: set[str]) -> list[tuple[StoredLayer, str]]:
    """Return the layers with their names, automatic ones counted from 0 again within each model of the file."""
    numbered: dict[tuple[tuple[str, ...], str], list[tuple[int, StoredLayer]]] = defaultdict(list)
    names = []
    for layer in layers:
        stem, _, number = layer.name.rpartition("_")
        if layer.name in stems:
            numbered[layer.path[:-1], layer.name].append((0, layer))
        elif stem in stems and number.isdecimal():
            numbered[layer.path[:-1], stem].append((int(number), layer))
        else:
            names.append((layer, layer.name))
    for (_, stem), same_class in numbered.items():
        for rank, (_, layer) in enumerate(sorted(same_class, key=lambda pair: pair[0])):
            names.append((layer, f"{stem}_{rank}" if rank else stem))
    return names


def _match_places(
    backbone: keras.Model, targets: Sequence[keras.layers.Layer], layers: Sequence[StoredLayer]
) -> Match | None:
    """Return a match by the places that Keras 3 writes layers to: ``layers/conv2d_1`` is the second Conv2D."""
    places = _list_places(backbone)
    by_path = {layer.path: layer for layer in layers}
    first = places[targets[0]]
    prefixes = {path[: -len(first)] for path in by_path if path[-len(first) :] == first}
    complete = [
        found
        for prefix in sorted(prefixes)
        if len(found := _find_at_places(prefix, targets, places, by_path)) == len(targets)
    ]
    return Match(complete[0]) if len(complete) == 1 else None


def _find_at_places(
    prefix: tuple[str, ...],
    targets: Sequence[keras.layers.Layer],
    places: Mapping[keras.layers.Layer, tuple[str, ...]],
    by_path: Mapping[tuple[str, ...], StoredLayer],
) -> dict[keras.layers.Layer, StoredLayer]:
    found = {target: by_path.get(prefix + places[target]) for target in targets}
    return {target: layer for target, layer in found.items() if layer and layer.shapes == _list_shapes(target)}


def _list_places(model: keras.Model) -> dict[keras.layers.Layer, tuple[str, ...]]:
    """Return the path at which Keras 3 writes each layer, relative to the group of the model."""
    places: dict[keras.layers.Layer, tuple[str, ...]] = {}
    counts: dict[str, int] = defaultdict(int)
    for layer in model.layers:
        stem = derive_layer_name(layer)
        name = f"{stem}_{counts[stem]}" if counts[stem] else stem
        counts[stem] += 1
        if isinstance(layer, keras.Model):
            places |= {inner: ("layers", name, *place) for inner, place in _list_places(layer).items()}
        else:
            places[layer] = ("layers", name)
    return places


def _describe_problems(backbone: keras.Model, targets: Sequence[keras.layers.Layer], match: Match) -> str:
    shown = "; ".join(match.problems[:SHOWN_PROBLEMS])
    more = len(match.problems) - SHOWN_PROBLEMS
    rest = f"; and {more} more" if more > 0 else ""
    return f"{len(match.found)} of the {len(targets)} layers of {backbone.name} are in the file: {shown}{rest}"


def _list_shapes(layer: keras.layers.Layer) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(weight.shape) for weight in layer.weights)


def _format_shapes(shapes: tuple[tuple[int, ...], ...]) -> str:
    return " ".join("x".join(map(str, shape)) for shape in shapes)
