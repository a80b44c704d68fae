"""TensorFlow's SavedModel of a model, with a signature for decoded images and one for encoded files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from imagetune.recipe.sections.data import ImageSettings

IMAGES = "serving_default"
"""The signature that takes ``images`` (n, height, width, 3) uint8 RGB."""
ENCODED = "encoded"
"""The signature that takes ``encoded`` (n,) bytes of image files."""
_PNG = b"\x89PNG"


def write_saved_model(model: keras.Model, folder: Path, image: ImageSettings, *, single: bool = False) -> None:
    """Write a SavedModel whose signatures give the outputs of `build_export_model` by their names, float32.

    The signature of files decodes JPEG, PNG, BMP and GIF inside the graph, lays transparent PNGs on the background and
    fits images into the frame as the model was trained; it doesn't turn images by their EXIF orientation.

    Args:
        model: (n, height, width, 3) RGB pixels 0..255 to outputs by name.
        folder: The folder to make.
        image: How an image file becomes the model's input.
        single: Whether it takes one image at a time, and has no signature of files: what LiteRT's converter reads. Of
            transformers the file is half as large then, with half of the operations, which else work out the shapes.
    """

    def predict(images: Any) -> dict[str, Any]:
        return dict(model(tf.cast(images, tf.float32), training=False))

    def predict_encoded(files: Any) -> dict[str, Any]:
        frame = tf.TensorSpec((image.height, image.width, 3), tf.uint8)
        return predict(tf.map_fn(lambda file: _decode(file, image), files, fn_output_signature=frame))

    archive = keras.export.ExportArchive()
    archive.track(model)
    pixels = tf.TensorSpec((1 if single else None, image.height, image.width, 3), tf.uint8, name="images")
    archive.add_endpoint(IMAGES, predict, input_signature=[pixels])
    if not single:
        files = tf.TensorSpec((None,), tf.string, name=ENCODED)
        archive.add_endpoint(ENCODED, predict_encoded, input_signature=[files])
    archive.write_out(str(folder), verbose=False)


def _decode(file: Any, image: ImageSettings) -> Any:
    """Return (height, width, 3) uint8 of the bytes of one image file."""
    background = tf.constant(image.background, tf.float32)

    def transparent() -> Any:
        pixels = tf.cast(tf.io.decode_png(file, channels=4), tf.float32)
        share = pixels[..., 3:] / 255.0
        return tf.round(pixels[..., :3] * share + background * (1.0 - share))

    def opaque() -> Any:
        return tf.cast(tf.io.decode_image(file, channels=3, expand_animations=False), tf.float32)

    pixels = tf.cond(tf.strings.substr(file, 0, len(_PNG)) == _PNG, transparent, opaque)
    return tf.cast(tf.round(_fit(tf.reshape(pixels, (*tf.unstack(tf.shape(pixels)[:2]), 3)), image)), tf.uint8)


def _fit(pixels: Any, image: ImageSettings) -> Any:
    """Return pixels fitted into the frame: padded, cropped in the middle, or squashed."""
    frame = tf.constant((image.height, image.width), tf.float32)
    sides = tf.cast(tf.shape(pixels)[:2], tf.float32)
    if image.resize == "squash":
        return _resize(pixels, (image.height, image.width))
    if image.resize == "crop":
        part = tf.cast(tf.clip_by_value(tf.round(frame / tf.reduce_max(frame / sides)), 1.0, sides), tf.int32)
        first = (tf.shape(pixels)[:2] - part) // 2
        shown = tf.slice(pixels, tf.concat([first, [0]], 0), tf.concat([part, [3]], 0))
        return _resize(shown, (image.height, image.width))
    inner = tf.cast(tf.clip_by_value(tf.round(sides * tf.reduce_min(frame / sides)), 1.0, frame), tf.int32)
    first = (tf.cast(frame, tf.int32) - inner) // 2
    background = tf.constant(image.background, tf.float32)
    # What is padded is zero, so it is the difference from the background that is padded.
    shown = _resize(pixels, inner) - background
    framed = tf.image.pad_to_bounding_box(shown, first[0], first[1], image.height, image.width) + background
    return tf.reshape(framed, (image.height, image.width, 3))


def _resize(pixels: Any, size: Any) -> Any:
    """Return pixels averaged over areas where they shrink, else interpolated."""
    grows = tf.reduce_prod(tf.cast(size, tf.int64)) >= tf.reduce_prod(tf.shape(pixels, tf.int64)[:2])
    return tf.cond(
        grows,
        lambda: tf.image.resize(pixels, size, method="bilinear"),
        lambda: tf.image.resize(pixels, size, method="area"),
    )
