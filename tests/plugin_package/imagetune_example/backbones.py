"""A backbone. Keras is imported where the network is built: the description is read by `recipe validate` too."""

from imagetune.model.backbones.blocks import BlockScheme
from imagetune.model.backbones.table import Backbone


def build_tiny_net(shape):
    """Return two convolutions, each a block: (batch, height, width, 3) to (batch, height / 4, width / 4, 16)."""
    import keras

    pixels = keras.Input(shape)
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="block1_conv")(pixels)
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="block2_conv")(x)
    return keras.Model(pixels, x)


TINY_NET = Backbone(
    name="tiny_net",
    scheme=BlockScheme(by_name=((r"block\1", r"^block(\d+)_"),)),
    preprocessing="tf",
    default_size=32,
    min_size=8,
    parameters=1392,
    build=build_tiny_net,
)
