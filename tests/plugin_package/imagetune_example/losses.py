"""A loss, of operations that every backend has."""

import keras


def poly_loss(targets, logits):
    """Return Poly-1 cross-entropy (Leng et al. 2022), (batch,), of (batch, classes) labels and logits."""
    entropy = keras.losses.categorical_crossentropy(targets, logits, from_logits=True)
    chance = keras.ops.sum(targets * keras.ops.softmax(logits), axis=-1)
    return entropy + 1.0 - chance
