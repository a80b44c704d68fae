"""Whether what a saved model states can be so, before memory is allocated for it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import keras
import psutil

from imagetune.errors import ResourceError, WeightsError
from imagetune.model.backbones.table import get_backbone
from imagetune.model.inference import measure_largest_output
from imagetune.recipe.sections.data import ImageSettings
from imagetune.recipe.sections.model import ModelConfig

# No backbone of the table has fewer output channels, and none reduces height and width by more than this.
MIN_CHANNELS = 192
LARGEST_REDUCTION = 64


def require_plausible_head(config: ModelConfig, image: ImageSettings, outputs: int, *, weights_bytes: int) -> None:
    """Refuse a head that needs more numbers than the weight file holds.

    Args:
        config: Backbone and head.
        image: Size of the images.
        outputs: Number of outputs of the model.
        weights_bytes: Size of the weight file.

    Raises:
        WeightsError: The head is larger than the file.
    """
    cells = (image.height // LARGEST_REDUCTION) * (image.width // LARGEST_REDUCTION) or 1
    # A plug-in's backbone may have any number of channels.
    channels = MIN_CHANNELS if get_backbone(config.backbone).build is None else 1
    features = channels * (cells if config.head.pooling == "flatten" else 1)
    units = (features, *config.head.hidden, outputs)
    if 4 * sum(before * after for before, after in pairwise(units)) > weights_bytes:
        raise WeightsError(f"its head is larger than the {weights_bytes} bytes of its weights")


def require_memory(model: keras.Model, place: Path) -> None:
    """Refuse a model for which one image would take more memory than there is.

    Args:
        model: A model that is built and hasn't computed anything.
        place: The folder that it comes from, for the message.

    Raises:
        ResourceError: There is too little memory.
    """
    # Two layers' outputs at a time, and what the operation between them works with.
    needed, free = 3 * measure_largest_output(model), psutil.virtual_memory().available
    if needed > free:
        what = f"for one image it needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"
        raise ResourceError(what, where=str(place), hint="use a machine with more memory, or a model of smaller images")
