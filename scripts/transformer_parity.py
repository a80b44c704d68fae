"""Compare our vision transformers with those of `transformers`, with random weights written and read as safetensors.

    python -m scripts.transformer_parity [--sizes] [--write tests/model/backbones/vision_transformer.npz]

It needs PyTorch (CPU) and transformers beside imagetune, which imagetune itself never does. Without options, tiny
networks are compared, at their own grid and with interpolated position embeddings; `--sizes` compares the real ones as
well. `--write` stores the tiny networks' weights, images and outputs, which the tests compare with. The last column is
the largest absolute difference; the exit code is 1 where one is above 1e-4.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from imagetune.model.backbones.architectures import TransformerArchitecture
from imagetune.model.backbones.table import find_size_problem, get_backbone
from imagetune.model.backbones.vision_transformer import build_vision_transformer
from imagetune.model.weights.huggingface import WEIGHTS_FILE, convert_huggingface_weights, read_safetensors

TOLERANCE = 1e-4
TINY = {
    "vit": TransformerArchitecture(width=12, depth=2, heads=3, patch=4, grid=3, epsilon=1e-12),
    "dinov2": TransformerArchitecture(width=12, depth=2, heads=3, patch=4, grid=4, epsilon=1e-6, layer_scale=True),
}
# In patches: the networks' own grids, and grids that position embeddings are interpolated to.
GRIDS = {"vit": ((3, 3), (5, 5), (2, 4)), "dinov2": ((4, 4), (5, 3), (2, 2))}
NAMES = ("deit_tiny", "deit_small", "vit_small", "vit_base", "dinov2_small", "dinov2_base")
SIZES = ((224, 224), (112, 112), (288, 224), (280, 224))


@dataclass(frozen=True)
class Reference:
    """A network of `transformers`: weights, images (1, height, width, 3) and the tokens that it makes of each."""

    weights: dict[str, np.ndarray]
    images: list[np.ndarray]
    tokens: list[np.ndarray]


def run_reference(architecture: TransformerArchitecture, sizes: Sequence[tuple[int, int]], seed: int) -> Reference:
    """Return what a network of `transformers` with random weights makes of random images of some sizes."""
    import torch

    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    network = _build_reference(architecture).eval()
    # DINOv2 always interpolates, and its forward pass has no such argument.
    options = {} if architecture.layer_scale else {"interpolate_pos_encoding": True}
    images = [random.normal(size=(1, *size, 3)).astype(np.float32) for size in sizes]
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        for parameter in network.parameters():  # all of them, as biases start at 0 and factors at 1
            parameter.add_(0.05 * torch.randn_like(parameter))
        pixels = [torch.from_numpy(image.transpose(0, 3, 1, 2)) for image in images]
        tokens = [network(image, **options).last_hidden_state.numpy() for image in pixels]
        network.save_pretrained(folder)
        return Reference(read_safetensors(Path(folder) / WEIGHTS_FILE), images, tokens)


def _build_reference(architecture: TransformerArchitecture) -> Any:
    import transformers

    common = {
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.depth,
        "num_attention_heads": architecture.heads,
        "image_size": architecture.patch * architecture.grid,
        "patch_size": architecture.patch,
    }
    if architecture.layer_scale:
        return transformers.Dinov2Model(transformers.Dinov2Config(**common))
    config = transformers.ViTConfig(**common, intermediate_size=4 * architecture.width)
    return transformers.ViTModel(config, add_pooling_layer=False)


def run_ours(
    architecture: TransformerArchitecture, weights: Mapping[str, np.ndarray], images: np.ndarray
) -> np.ndarray:
    """Return the tokens (1, 1 + patches, width) that our network makes of weights in the layout of `transformers`."""
    arrays, _ = convert_huggingface_weights(architecture, weights)
    parts = []
    for class_token in (True, False):
        network = build_vision_transformer(architecture, images.shape[1:], "network", class_token=class_token)
        for name, values in arrays.items():
            network.get_layer(name).set_weights(values)
        tokens = keras.ops.convert_to_numpy(network(images, training=False))
        parts.append(tokens.reshape(len(tokens), -1, architecture.width))
    return np.concatenate(parts, axis=1)


def list_cases(*, sizes: bool) -> Iterator[tuple[str, TransformerArchitecture, list[tuple[int, int]]]]:
    """Yield the name, architecture and image sizes of each network."""
    for name, architecture in TINY.items():
        yield f"tiny {name}", architecture, [(h * architecture.patch, w * architecture.patch) for h, w in GRIDS[name]]
    for name in NAMES if sizes else ():
        backbone = get_backbone(name)
        assert isinstance(backbone.architecture, TransformerArchitecture)
        yield name, backbone.architecture, [size for size in SIZES if find_size_problem(backbone, size) is None]


def main() -> int:
    """Print a row for each comparison, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", action="store_true", help="also compare the networks of the table of backbones")
    parser.add_argument("--write", type=Path, help="file that receives weights, images and tokens of the tiny networks")
    arguments = parser.parse_args()
    largest = 0.0
    stored: dict[str, np.ndarray] = {}
    for seed, (name, architecture, sizes) in enumerate(list_cases(sizes=arguments.sizes)):
        reference = run_reference(architecture, sizes, seed)
        for images, tokens in zip(reference.images, reference.tokens, strict=True):
            difference = float(np.abs(run_ours(architecture, reference.weights, images) - tokens).max())
            largest = max(largest, difference)
            print(f"{name:14} {images.shape[1]:4} x {images.shape[2]:4}  {difference:.1e}", flush=True)
        if name.startswith("tiny"):
            stored |= {f"{name}/weights/{tensor}": array for tensor, array in reference.weights.items()}
            stored |= {f"{name}/images/{number}": array for number, array in enumerate(reference.images)}
            stored |= {f"{name}/tokens/{number}": array for number, array in enumerate(reference.tokens)}
    if arguments.write:
        np.savez_compressed(arguments.write, **stored)  # type: ignore[arg-type]  # names are free
    return int(largest > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
