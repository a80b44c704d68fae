"""Weights of vision transformers in Hugging Face's layout: safetensors files with the names of ``transformers``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from imagetune.core.files import open_regular_file, read_json
from imagetune.errors import WeightsError
from imagetune.model.backbones.architectures import TransformerArchitecture
from imagetune.model.backbones.vision_transformer import (
    CLASS_TOKEN,
    MLP_RATIO,
    PATCH_EMBEDDING,
    POSITION_EMBEDDING,
    TOP_NORM,
    compute_resize_matrix,
)

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
SUFFIX = ".safetensors"
LARGEST_CONFIG_BYTES = 1 << 20
# A large vision transformer has 400 tensors, which take 120 bytes each.
LARGEST_HEADER_BYTES = 1 << 20
LARGEST_CARD_HEAD = 1 << 16
_CLASS_TOKEN = "embeddings.cls_token"  # noqa: S105 - the name of a tensor
# Tensors of relatives that these networks don't have: their tokens would be missing.
_RELATIVES = {
    "embeddings.distillation_token": "a distilled DeiT, which has a second class token",
    "embeddings.register_tokens": "a DINOv2 with registers, which has more tokens",
    "weights_in.weight": "a network with SwiGLU layers",
}


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a safetensors file as float32, by name.

    Raises:
        WeightsError: The file is corrupted, or holds numbers that NumPy can't read or that are not finite.
    """
    tensors: dict[str, np.ndarray] = {}
    try:
        _check_header(path)
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - no mapping
                # One at a time: a file of half-precision numbers would else be in memory twice.
                tensors[name] = np.asarray(file.get_tensor(name)).astype(np.float32)
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        what = f"corrupted, or not a safetensors file of float32 or float16 numbers: {error}"
        raise WeightsError(what, where=str(path), hint="copy the file again, or convert its numbers") from error
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise WeightsError(f"{name} holds numbers that are not finite", where=str(path))
    return tensors


def _check_header(path: Path) -> None:
    """Refuse a file whose header is larger than a network's: its entries take many times as much memory.

    That each tensor lies in the file, and none in another, safetensors checks itself.
    """
    with open_regular_file(path) as file:
        head = file.read(8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > LARGEST_HEADER_BYTES:
        raise ValueError(f"a header of {size:,} bytes is stated, and the most is {LARGEST_HEADER_BYTES:,}")


def check_config(architecture: TransformerArchitecture, path: Path) -> None:
    """Refuse the ``config.json`` of another network; what is not in it is not compared.

    Raises:
        WeightsError: A value would make the network compute something else; the message names all of them.
    """
    expected = {
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.depth,
        "num_attention_heads": architecture.heads,
        "intermediate_size": MLP_RATIO * architecture.width,
        "mlp_ratio": MLP_RATIO,
        "patch_size": architecture.patch,
        "num_channels": 3,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "use_swiglu_ffn": False,
    }
    try:
        config = read_json(path, max_bytes=LARGEST_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise WeightsError(f"can't be read as JSON: {error}", where=str(path)) from error
    if not isinstance(config, dict):
        raise WeightsError("doesn't describe a network", where=str(path))
    wrong = [
        f"{key} {config[key]!r} instead of {value!r}"
        for key, value in expected.items()
        if config.get(key, value) != value
    ]
    if wrong:
        raise WeightsError(f"another network: {', '.join(wrong)}", where=str(path), hint=_suggest(architecture))


def read_license(folder: Path) -> str | None:
    """Return the licence that the model card README.md of a folder states, as Hugging Face spells it; None without."""
    try:
        with open_regular_file(folder / "README.md") as file:
            head = file.read(LARGEST_CARD_HEAD).decode("utf-8", "replace")
    except OSError:
        return None
    # Only in the metadata at its head: further down the word may stand for anything.
    metadata = re.match(r"---\n(.*?)\n---", head, re.DOTALL)
    stated = re.search(r"^license:\s*[\"']?([\w.+-]+)", metadata[1], re.MULTILINE) if metadata else None
    return stated[1] if stated else None


def convert_huggingface_weights(
    architecture: TransformerArchitecture, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, list[np.ndarray]], tuple[str, ...]]:
    """Return the weights of each layer, in Keras's order and layout, and the names of the tensors that are not used.

    Position embeddings for another grid than the architecture's are interpolated to it.

    Args:
        architecture: The network.
        tensors: Array by name, with or without the prefix of a whole model (``vit.``).

    Raises:
        WeightsError: A tensor is missing, or they are those of a relative that has further tokens.
    """
    prefix = _find_prefix(architecture, tensors)
    used, arrays = set(), {}
    for layer, kind, sources in _list_layer_sources(architecture):
        names = [prefix + source for source in sources]
        if missing := [name for name in names if name not in tensors]:
            raise WeightsError(f"{missing[0]} is missing", hint=_suggest(architecture))
        arrays[layer] = _convert(kind, [tensors[name] for name in names], architecture)
        used.update(names)
    return arrays, tuple(sorted(set(tensors) - used))


def describe_positions(architecture: TransformerArchitecture, tensors: Mapping[str, np.ndarray]) -> str:
    """Return a clause about the interpolation of the file's position embeddings; empty where there was none."""
    positions = tensors[_find_prefix(architecture, tensors) + "embeddings.position_embeddings"]
    if positions.ndim != 3 or (count := positions.shape[1]) == architecture.positions:
        return ""
    side = round((count - 1) ** 0.5)
    return f"; position embeddings interpolated from {side} x {side} to {architecture.grid} x {architecture.grid}"


def _find_prefix(architecture: TransformerArchitecture, tensors: Mapping[str, np.ndarray]) -> str:
    for ending, relative in _RELATIVES.items():
        if any(name.endswith(ending) for name in tensors):
            raise WeightsError(f"the weights of {relative}", hint=_suggest(architecture))
    found = [name.removesuffix(_CLASS_TOKEN) for name in tensors if name.endswith(_CLASS_TOKEN)]
    if len(found) != 1:
        raise WeightsError(f"no tensor called {_CLASS_TOKEN}", hint=_suggest(architecture))
    return found[0]


def _suggest(architecture: TransformerArchitecture) -> str:
    return f"give {WEIGHTS_FILE} and {CONFIG_FILE} of {architecture.repository} or of a model fine-tuned from it"


def _list_layer_sources(architecture: TransformerArchitecture) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield (name of the layer, kind of layer, names of its tensors without the prefix)."""
    yield PATCH_EMBEDDING, "conv", _pair("embeddings.patch_embeddings.projection")
    yield CLASS_TOKEN, "plain", (_CLASS_TOKEN,)
    yield POSITION_EMBEDDING, "positions", ("embeddings.position_embeddings",)
    # ViT and DeiT have other names than DINOv2 for the same layers.
    norm1, norm2, hidden, output = (
        ("norm1", "norm2", "mlp.fc1", "mlp.fc2")
        if architecture.layer_scale
        else ("layernorm_before", "layernorm_after", "intermediate.dense", "output.dense")
    )
    for number in range(architecture.depth):
        ours, theirs = f"block{number + 1}", f"encoder.layer.{number}"
        yield f"{ours}_attention_norm", "plain", _pair(f"{theirs}.{norm1}")
        for part in ("query", "key", "value"):
            yield f"{ours}_{part}", "dense", _pair(f"{theirs}.attention.attention.{part}")
        yield f"{ours}_projection", "dense", _pair(f"{theirs}.attention.output.dense")
        yield f"{ours}_mlp_norm", "plain", _pair(f"{theirs}.{norm2}")
        yield f"{ours}_hidden", "dense", _pair(f"{theirs}.{hidden}")
        yield f"{ours}_output", "dense", _pair(f"{theirs}.{output}")
        if architecture.layer_scale:
            yield f"{ours}_attention_scale", "plain", (f"{theirs}.layer_scale1.lambda1",)
            yield f"{ours}_mlp_scale", "plain", (f"{theirs}.layer_scale2.lambda1",)
    yield TOP_NORM, "plain", _pair("layernorm")


def _pair(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


def _convert(kind: str, arrays: list[np.ndarray], architecture: TransformerArchitecture) -> list[np.ndarray]:
    first, *rest = arrays
    if kind == "dense":
        return [first.T, *rest]
    if kind == "conv" and first.ndim == 4:
        return [first.transpose(2, 3, 1, 0), *rest]
    if kind == "positions" and first.ndim == 3:
        return [_fit_positions(first, architecture)]
    return arrays


def _fit_positions(positions: np.ndarray, architecture: TransformerArchitecture) -> np.ndarray:
    """Return position embeddings (1, 1 + patches, width) for the architecture's grid; see ``describe_positions``."""
    _, count, width = positions.shape
    side = round((count - 1) ** 0.5)
    # What has no square grid is left as it is, and refused for its shape.
    if count == architecture.positions or side**2 != count - 1:
        return positions
    matrix = compute_resize_matrix(side, architecture.grid)
    patches = np.einsum("ri,sj,ijc->rsc", matrix, matrix, positions[0, 1:].reshape(side, side, width))
    return np.concatenate([positions[:, :1], patches.reshape(1, -1, width)], axis=1)
