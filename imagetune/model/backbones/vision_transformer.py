"""Vision transformers of layers that Keras ships: ViT, DeiT and DINOv2, as ``transformers`` computes them.

Dosovitskiy et al. 2021, arXiv 2010.11929; Touvron et al. 2021, arXiv 2012.12877; Oquab et al. 2023, arXiv 2304.07193.
Class token and position embeddings are kernels of EinsumDense layers whose input is a one, and layer scale is an
EinsumDense that multiplies channel by channel: no layer is our own, so that plain Keras opens a saved model.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from imagetune.model.backbones.architectures import TransformerArchitecture

MLP_RATIO = 4
# Stochastic depth as DeiT was trained with (its table 9).
DROP_PATH = 0.1
INITIAL_DEVIATION = 0.02
# PyTorch's coefficient of bicubic interpolation.
CUBIC = -0.75
PATCH_EMBEDDING = "patch_embedding"
CLASS_TOKEN = "class_token"  # noqa: S105 - the name of a layer
POSITION_EMBEDDING = "position_embedding"
TOP_NORM = "top_norm"
TOP_MAP = "top_map"


def build_vision_transformer(
    architecture: TransformerArchitecture, input_shape: tuple[int, int, int], name: str, *, class_token: bool = False
) -> keras.Model:
    """Return a vision transformer without its classifier, with random weights.

    The weights don't depend on the image size: position embeddings are stored for the architecture's own grid, and
    interpolated to that of the images by the network itself.

    Args:
        architecture: Its dimensions.
        input_shape: (height, width, 3), multiples of the patch.
        name: Name of the network.
        class_token: Whether the output is the class token instead of the patches; the weights are the same.

    Returns:
        A functional model: (batch, height, width, 3) float to (batch, rows, columns, width) float, the patches after
        the last normalisation; or to (batch, 1, 1, width), the class token.
    """
    layers = keras.layers
    rows, columns = (side // architecture.patch for side in input_shape[:2])
    inputs = keras.Input(input_shape)
    x = _add_tokens(inputs, architecture, (rows, columns))
    for number in range(1, architecture.depth + 1):
        x = _add_block(x, architecture, number)
    x = layers.LayerNormalization(epsilon=architecture.epsilon, name=TOP_NORM)(x)
    cropping, shape = ((0, rows * columns), (1, 1)) if class_token else ((1, 0), (rows, columns))
    x = layers.Cropping1D(cropping, name="top_crop")(x)
    return keras.Model(inputs, layers.Reshape((*shape, architecture.width), name=TOP_MAP)(x), name=name)


def find_last_tokens(network: keras.Model) -> tuple[Any, tuple[int, int]] | None:
    """Return the tokens that the last block reads, and the rows and columns of their patches.

    The class token that a network gives is made of them: behind that block, the patches have no influence on it.

    Args:
        network: Any backbone.

    Returns:
        Keras tensor (batch, 1 + rows * columns, width) with the class token first, and (rows, columns); None for a
        network whose output is not a class token.
    """
    if network.layers[-1].name != TOP_MAP or tuple(network.output.shape[1:3]) != (1, 1):
        return None
    rows, columns = network.get_layer(PATCH_EMBEDDING).output.shape[1:3]
    last = [layer for layer in network.layers if layer.name.endswith("_attention_norm")][-1]
    return last.input, (int(rows), int(columns))


def compute_resize_matrix(size: int, target: int) -> NDArray[np.float32]:
    """Return the matrix (target, size) of bicubic interpolation along one axis, as PyTorch's ``interpolate`` does it.

    Pixel centres lie at halves, the border is repeated, and nothing is smoothed where the target is smaller.
    """
    centres = (np.arange(target) + 0.5) * size / target - 0.5
    first = np.floor(centres).astype(int)
    matrix = np.zeros((target, size))
    for step in range(-1, 3):
        sources = np.clip(first + step, 0, size - 1)
        np.add.at(matrix, (np.arange(target), sources), _weigh_cubic(np.abs(centres - first - step)))
    return matrix.astype(np.float32)


def _weigh_cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    near = (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
    far = CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    weights: NDArray[np.float64] = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
    return weights


def _add_tokens(inputs: Any, architecture: TransformerArchitecture, grid: tuple[int, int]) -> Any:
    layers, width = keras.layers, architecture.width
    patches = layers.Conv2D(
        width,
        architecture.patch,
        strides=architecture.patch,
        kernel_initializer=_build_initializer(),
        name=PATCH_EMBEDDING,
    )(inputs)
    patches = layers.Reshape((grid[0] * grid[1], width), name="tokens_patches")(patches)
    one = keras.ops.ones_like(patches[:, 0, :1])
    # One for the whole batch: all images have the same positions.
    first = keras.ops.max(one, axis=0, keepdims=True)
    positions = _build_constant(architecture.positions, width, POSITION_EMBEDDING)(first)
    of_token = layers.Cropping1D((0, architecture.grid**2), name="position_of_token")(positions)
    of_patches = layers.Cropping1D((1, 0), name="position_of_patches")(positions)
    # By operations: the layer Add would take the batch to be one image, as the positions are. Added before the tokens
    # are joined, so that Keras orders the layers, and with them the weights, in the same way for every image size.
    token = _build_constant(1, width, CLASS_TOKEN)(one) + of_token
    patches = patches + _resize_positions(of_patches, architecture, grid)
    return layers.Concatenate(axis=1, name="tokens")([token, patches])


def _build_constant(tokens: int, width: int, name: str) -> keras.layers.Layer:
    """Return a layer that turns a one (batch, 1) into its kernel (batch, tokens, width)."""
    return keras.layers.EinsumDense("ab,bcd->acd", (tokens, width), kernel_initializer=_build_initializer(), name=name)


def _resize_positions(positions: Any, architecture: TransformerArchitecture, grid: tuple[int, int]) -> Any:
    """Return the position embeddings (batch, patches, width) of the architecture's grid interpolated to another."""
    side = architecture.grid
    if grid == (side, side):
        return positions
    x = keras.layers.Reshape((side, side, architecture.width), name="position_map")(positions)
    x = keras.ops.einsum("ri,bijc->brjc", compute_resize_matrix(side, grid[0]), x)
    x = keras.ops.einsum("sj,brjc->brsc", compute_resize_matrix(side, grid[1]), x)
    return keras.layers.Reshape((grid[0] * grid[1], architecture.width), name="position_rows")(x)


def _add_block(x: Any, architecture: TransformerArchitecture, number: int) -> Any:
    name, layers = f"block{number}", keras.layers
    for part, add_branch in (("attention", _add_attention), ("mlp", _add_mlp)):
        branch = layers.LayerNormalization(epsilon=architecture.epsilon, name=f"{name}_{part}_norm")(x)
        branch = add_branch(branch, architecture, name)
        if architecture.layer_scale:
            scale = layers.EinsumDense(
                "abc,c->abc", (None, architecture.width), kernel_initializer="ones", name=f"{name}_{part}_scale"
            )
            branch = scale(branch)
        # One random number an image drops the whole branch; the rate grows linearly with depth.
        rate = DROP_PATH * number / architecture.depth
        branch = layers.Dropout(rate, noise_shape=(None, 1, 1), name=f"{name}_{part}_drop")(branch)
        x = layers.Add(name=f"{name}_{part}_add")([x, branch])
    return x


def _add_attention(x: Any, architecture: TransformerArchitecture, name: str) -> Any:
    # Layers of their own instead of a MultiHeadAttention: Keras stores the parts of that in alphabetical order, in
    # which a weight file without names can't tell query from key.
    width, tokens = architecture.width, x.shape[1]
    split = (tokens, architecture.heads, width // architecture.heads)
    parts = [
        keras.layers.Reshape(split, name=f"{name}_{part}_heads")(_build_dense(width, f"{name}_{part}")(x))
        for part in ("query", "key", "value")
    ]
    mixed = keras.ops.dot_product_attention(*parts)
    mixed = keras.layers.Reshape((tokens, width), name=f"{name}_attention")(mixed)
    return _build_dense(width, f"{name}_projection")(mixed)


def _add_mlp(x: Any, architecture: TransformerArchitecture, name: str) -> Any:
    hidden = _build_dense(MLP_RATIO * architecture.width, f"{name}_hidden", activation="gelu")(x)
    return _build_dense(architecture.width, f"{name}_output")(hidden)


def _build_dense(units: int, name: str, activation: str | None = None) -> keras.layers.Layer:
    return keras.layers.Dense(units, activation=activation, kernel_initializer=_build_initializer(), name=name)


def _build_initializer() -> keras.initializers.Initializer:
    return keras.initializers.TruncatedNormal(stddev=INITIAL_DEVIATION)
