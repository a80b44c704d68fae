"""Loading of the images of a batch one by one, in a worker process or a thread; those that can't be loaded are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from imagetune.data.loading.decode import load_image
from imagetune.errors import BadImageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from imagetune.recipe.sections.data import ImageSettings


class FileLoader:
    """Loader of the batch of a step of files without labels; it is pickled for the workers with its paths.

    Args:
        paths: The files.
        image: Size, resize method and background.
        max_pixels: Larger images are refused.
        batch_size: Images in a batch.
    """

    def __init__(self, paths: Sequence[str], image: ImageSettings, max_pixels: int, batch_size: int) -> None:
        self._paths = paths
        self._image = image
        self._max_pixels = max_pixels
        self._batch_size = batch_size

    def __call__(self, step: int) -> dict[str, Any]:
        """Return the batch of a step as `load_each` does, with the label -1 for each image."""
        first = int(step) * self._batch_size
        paths = self._paths[first : first + self._batch_size]
        loaded = load_each(
            range(first, first + len(paths)),
            lambda place: load_image(paths[place], self._image, max_pixels=self._max_pixels),
            self._image,
        )
        return loaded | {"labels": np.full(len(loaded["indices"]), -1, np.int32)}


def load_each(
    indices: Sequence[int], load: Callable[[int], npt.NDArray[np.uint8]], image: ImageSettings
) -> dict[str, Any]:
    """Return the images of a batch that can be loaded, their indices, and the errors of the others.

    Args:
        indices: Of the images among all.
        load: From the place in the batch to the image.
        image: Its size.
    """
    images = np.empty((len(indices), image.height, image.width, 3), np.uint8)
    # Exceptions lose their attributes on the way back from a worker, so errors are returned as text.
    errors: list[tuple[int, str, str, str]] = []
    kept: list[int] = []
    for place, index in enumerate(indices):
        try:
            images[len(kept)] = load(place)
        except BadImageError as error:
            errors.append((index, error.where, error.what, error.hint))
        else:
            kept.append(index)
    return {"images": images[: len(kept)], "indices": np.array(kept, np.int64), "errors": errors}
